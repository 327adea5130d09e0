"use strict";

// What is shown is a function of the controls, and the controls stand in the address: a link opens the same view.
const told = JSON.parse(document.getElementById("told").textContent);
const controls = document.getElementById("controls");
const cards = document.getElementById("cards");
const more = document.getElementById("more");
const ADDRESS = "#gallery?";
const AT_ONCE = 24;
let most = AT_ONCE;

const outcomes = {
  0: (model, image) => model.clean[image] === told.labels[image],
  1: (model, image) => model.clean[image] !== told.labels[image],
  2: (model, image) => outcomes[0](model, image) && model.adversarial?.[image] === told.labels[image],
  3: (model, image) => outcomes[0](model, image) && model.adversarial && model.adversarial[image] !== told.labels[image],
};

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function chosen(name) {
  const value = controls.elements[name].value;
  return value === "" ? null : Number(value);
}

function selected(model) {
  const [ofClass, outcome] = [chosen("class"), chosen("outcome")];
  return told.labels
    .map((_, image) => image)
    .filter((image) => ofClass === null || told.labels[image] === ofClass)
    .filter((image) => outcome === null || outcomes[outcome](model, image));
}

// Images without a score come last in either order; equal ones stay in the order of the split.
function sorted(images, values) {
  const sign = chosen("order") === 0 ? 1 : -1;
  const none = (image) => values[image] === null;
  return images.sort((a, b) => none(a) - none(b) || (none(a) ? 0 : sign * (values[a] - values[b])));
}

function tile(kind, name, image) {
  const made = element("div", undefined, `tile ${kind}`);
  const rows = Math.ceil(told.labels.length / told.columns);
  const place = (at, of) => `${of > 1 ? (100 * at) / (of - 1) : 0}%`;
  const [x, y] = [image % told.columns, Math.floor(image / told.columns)];
  made.style.backgroundPosition = `${place(x, told.columns)} ${place(y, rows)}`;
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", `${name} ${image}`);
  made.title = name;
  return made;
}

function answers(model, image) {
  const name = (of) => told.classes[of];
  const seen = (of) => `${name(of)}\u00a0${of === told.labels[image] ? "\u2713" : "\u2717"}`;
  const attacked = model.adversarial ? `, attacked ${seen(model.adversarial[image])}` : "";
  return `${image}: ${name(told.labels[image])}, seen as ${seen(model.clean[image])}${attacked}`;
}

function scores(model, image) {
  const list = element("dl");
  told.scores.forEach((name, score) => {
    if (!model.scores[score]) return;
    const value = model.scores[score][image];
    const row = element("div", undefined, score === chosen("score") ? "chosen" : "");
    row.append(element("dt", name), element("dd", value === null ? "none" : value.toFixed(2).replace("-", "\u2212")));
    list.append(row);
  });
  return list;
}

function card(model, image) {
  const made = element("li", undefined, "card");
  const tiles = element("button", undefined, "tiles");
  tiles.type = "button";
  tiles.setAttribute("aria-haspopup", "dialog");
  tiles.setAttribute("aria-label", `Enlarge image ${image}`);
  tiles.append(tile("image", "image", image));
  if (model.weights) tiles.append(tile("attention", model.weights, image));
  tiles.append(tile("gradient", "gradient map", image));
  made.append(tiles, element("p", answers(model, image)), scores(model, image));
  return made;
}

// What there is no file of cannot be chosen.
function offer(model) {
  for (const option of controls.elements.score.options) {
    option.disabled = option.value !== "" && !model.scores[option.value];
  }
  for (const option of controls.elements.outcome.options) {
    option.disabled = ["2", "3"].includes(option.value) && !model.adversarial;
  }
  for (const name of ["score", "outcome"]) {
    if (controls.elements[name].selectedOptions[0]?.disabled) controls.elements[name].value = "";
  }
}

function show() {
  const model = told.models[chosen("model")];
  offer(model);
  const score = chosen("score");
  const values = score === null ? told.labels.map((_, image) => image) : model.scores[score];
  const images = sorted(selected(model), values);
  cards.className = `model-${chosen("model")}`;
  cards.replaceChildren(...images.slice(0, most).map((image) => card(model, image)));
  more.hidden = images.length <= most;
  document.getElementById("shown").textContent = `${images.length} of ${told.labels.length} images`;
  document.getElementById("weights").textContent = model.weights
    ? `${model.weights} from 0 (dark) to ${model.largest} (uniform: ${model.uniform})`
    : "which need irt analyze attention-rank";
}

function showAddress() {
  if (!location.hash.startsWith(ADDRESS)) return;
  for (const [name, value] of new URLSearchParams(location.hash.slice(ADDRESS.length))) {
    const control = controls.elements[name];
    if (control && [...control.options].some((option) => option.value === value)) control.value = value;
  }
  show();
  document.querySelector("#gallery > details").open = true;
  document.getElementById("gallery").scrollIntoView();
}

controls.addEventListener("change", () => {
  most = AT_ONCE;
  show();
  history.replaceState(null, "", ADDRESS + new URLSearchParams(new FormData(controls)));
});
more.addEventListener("click", () => {
  most += AT_ONCE;
  show();
});
addEventListener("hashchange", showAddress);
show();
showAddress();
