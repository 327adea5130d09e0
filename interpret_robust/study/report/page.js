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

// What is enlarged: the picture of a section, which the first screen shows small, with its caption; or a card of the
// gallery. Escape, the button and a click beside it close the dialog.
const large = document.getElementById("large");

function enlargePicture(figure, link) {
  const [scroller, picture] = [document.createElement("div"), figure.querySelector("img").cloneNode()];
  scroller.className = "wide";
  scroller.tabIndex = 0;
  scroller.append(picture);
  const caption = document.createElement("p");
  caption.append(...figure.querySelector("figcaption span").cloneNode(true).childNodes);
  if (link) {
    const way = document.createElement("a");
    [way.href, way.textContent] = [link.hash, "See it among its tables."];
    caption.append(" ", way);
  }
  return [scroller, caption];
}

function enlargeCard(item) {
  const [box, card] = [document.createElement("div"), document.createElement("div")];
  box.className = item.parentElement.className;
  card.className = "card";
  const tiles = document.createElement("div");
  tiles.className = "tiles";
  tiles.append(...item.querySelector(".tiles").cloneNode(true).children);
  card.append(tiles, ...[...item.children].slice(1).map((part) => part.cloneNode(true)));
  box.append(card);
  return [box];
}

document.addEventListener("click", (event) => {
  if (event.target === large || event.target.closest("#large a")) large.close();
  const opener = event.target.closest(".thumbnail, .paper, button.tiles");
  if (!opener || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const link = opener.matches(".thumbnail") ? opener : null;
  const figure = link ? document.getElementById(link.hash.slice(1)) : opener.closest("figure");
  document.getElementById("large-content").replaceChildren(...(figure ? enlargePicture(figure, link) : enlargeCard(opener.closest("li"))));
  large.showModal();
});

// The contents mark the section that is read: the first of those in the upper fifth of the window.
const contents = document.getElementById("contents");
const middle = (start, length, room) => start - (room - length) / 2;
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const sections = [...document.querySelectorAll("main > section")];
const visible = new Set();
const observer = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) visible[entry.isIntersecting ? "add" : "delete"](entry.target);
    const current = sections.find((section) => visible.has(section));
    if (current) links.forEach((link, name) => link.toggleAttribute("aria-current", name === current.id));
    const link = links.get(current?.id);
    // A phone's contents scroll sideways, those of a wide window downwards: the marked one comes into their middle.
    if (link) contents.scrollTo(middle(link.offsetLeft, link.offsetWidth, contents.clientWidth), middle(link.offsetTop, link.offsetHeight, contents.clientHeight));
  },
  { rootMargin: "-64px 0px -75% 0px" }, // below where an address scrolls to
);
sections.forEach((section) => observer.observe(section));

// They fade at the edges behind which there are more of them.
function fade() {
  contents.classList.toggle("before", contents.scrollLeft > 1);
  contents.classList.toggle("after", contents.scrollLeft + contents.clientWidth < contents.scrollWidth - 1);
}
contents.addEventListener("scroll", fade);
addEventListener("resize", fade);
fade();

addEventListener("hashchange", unfold);
document.addEventListener("click", (event) => {
  if (!event.defaultPrevented && event.target.closest("a[href^='#']")) setTimeout(unfold);
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
unfold();
