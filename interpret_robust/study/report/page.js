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
  link.prepend(made);
}

// The contents mark the section that is read.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link, name) => link.toggleAttribute("aria-current", name === entry.target.id));
    }
  },
  { rootMargin: "0px 0px -80% 0px" },
);
document.querySelectorAll("main > section").forEach((section) => seen.observe(section));

addEventListener("hashchange", unfold);
document.addEventListener("click", (event) => {
  if (event.target.closest("a[href^='#']")) setTimeout(unfold);
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
unfold();
