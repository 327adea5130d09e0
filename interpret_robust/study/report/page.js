"use strict";

// A section that an address names is unfolded; all of it is for the printer.
function unfold() {
  const name = decodeURIComponent(location.hash.slice(1)).split("?")[0];
  const target = name && document.getElementById(name);
  if (!target) return;
  for (const details of [target.querySelector(":scope > details"), target.closest("details")]) {
    for (let each = details; each; each = each.parentElement?.closest("details")) each.open = true;
  }
  if (!location.hash.includes("?")) target.scrollIntoView();
}

// The pictures of the first screen are those of the sections, which hold them once.
for (const link of document.querySelectorAll("a.thumbnail")) {
  const picture = document.getElementById(link.hash.slice(1)).querySelector("img");
  const made = new Image();
  made.src = picture.src;
  made.alt = picture.alt;
  const caption = document.createElement("span");
  caption.textContent = picture.alt;
  caption.ariaHidden = "true";
  link.append(made, caption);
}

// The contents mark the section that is read: the first of those in the upper fifth of the window.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const sections = [...document.querySelectorAll("main > section")];
const visible = new Set();
const observer = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) visible[entry.isIntersecting ? "add" : "delete"](entry.target);
    const current = sections.find((section) => visible.has(section));
    if (current) links.forEach((link, name) => link.toggleAttribute("aria-current", name === current.id));
  },
  { rootMargin: "0px 0px -80% 0px" },
);
sections.forEach((section) => observer.observe(section));

addEventListener("hashchange", unfold);
document.addEventListener("click", (event) => {
  if (event.target.closest("a[href^='#']")) setTimeout(unfold);
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
unfold();
