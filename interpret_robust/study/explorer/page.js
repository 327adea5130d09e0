"use strict";

// What is shown is a function of `view` and of the cells that are known. The view stands in the address, so that a link
// opens the same one. Cells come from a server as they are computed, or all lie in the page: see `live` and `baked`.

const byId = (id) => document.getElementById(id);
const SIDE = 256;
const MOST_CELLS = 500;
const MOST_TRIED = 200;
const MOST_NUMBERED = 9;
const CLOSE = 0.05; // a difference of probabilities that makes no model the more robust one
const OF_PREDICTED_CLASS = ["Grad-CAM", "relevance"]; // weights that are another thing once the class changes
const VIRIDIS = [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [68, 1, 84]];
const view = { image: "0", label: 0, norm: "", eps: "0", steps: 20, loss: "", rule: "", sign: "plus", position: null, class: "", outcome: "" };
const store = new Map();
const scratch = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
let setup, source, photo, addressTimer;
let turn = new AbortController();

const OUTCOMES = {
  "": { text: "any", needs: [], fits: () => true },
  natural: { text: "all right, natural", needs: ["0"], fits: (natural) => natural.every(Boolean) },
  mistaken: { text: "some wrong, natural", needs: ["0"], fits: (natural) => !natural.every(Boolean) },
  split: { text: "attack splits the models", needs: ["eps"], fits: (_, attacked) => attacked.some(Boolean) && !attacked.every(Boolean) },
  withstood: { text: "all withstand the attack", needs: ["eps"], fits: (_, attacked) => attacked.every(Boolean) },
  broken: { text: "all fail under attack", needs: ["0", "eps"], fits: (natural, attacked) => natural.some(Boolean) && !attacked.some(Boolean) },
};

// ---- where cells come from

const live = {
  async ask(name, fields, signal) {
    const answer = await fetch(`${name}?${new URLSearchParams(fields)}`, { signal });
    if (!answer.ok) throw new Error((await answer.json()).error);
    return answer;
  },
  async *stream(name, fields, signal) {
    const reader = (await live.ask(name, fields, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const message = JSON.parse(line);
        if (message.error) throw new Error(message.error);
        yield message;
      }
    }
  },
  setup: async () => (await live.ask("setup", {})).json(),
  image: async (key, signal) => (await live.ask("image", { image: key }, signal)).json(),
  cells: (asked, signal) => live.stream("cells", asked, signal),
  deletions: (asked, position, signal) => live.stream("deletions", { ...asked, position }, signal),
  async upload(file) {
    const answer = await fetch("image", { method: "POST", body: file });
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error);
    return content.image;
  },
};

function baked(content) {
  const cellsOf = (asked) => content.cells[asked.image][asked.eps];
  return {
    answers: (image, eps) => cellsOf({ image, eps }).map(({ prediction }) => prediction === content.setup.labels[image]),
    setup: async () => content.setup,
    image: async (key) => ({ picture: content.images[key], label: content.setup.labels[Number(key)] }),
    async *cells(asked) {
      for (const [model, cell] of cellsOf(asked).entries()) yield { model, step: asked.steps, cell, files: content.files[asked.eps][model] };
    },
    async *deletions(asked, position) {
      for (const [model, cell] of cellsOf(asked).entries()) {
        if (cell.without) yield { model, prediction: cell.without[0][position], truth: cell.without[1][position] };
      }
    },
  };
}

// ---- words

const number = (text) => {
  const [top, bottom] = text.split("/").map(Number);
  return bottom ? top / bottom : top;
};
const percent = (share) => (share === null || share === undefined ? "\u2013" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}\u00a0%`);
const signed = (value) => value.toFixed(2).replace("-", "\u2212");
const className = (place) => setup.classes[place] ?? "no class";
const radii = () => setup.norms[view.norm].radii;
const isIn255 = () => radii().slice(1).every((eps) => eps.endsWith("/255"));
const usualLoss = () => Object.keys(setup.losses)[0];
const unit = () => (isIn255() ? "/255" : "");
// The number that stands at a place of the slider, without its unit; none where there is no room for all.
const numberAt = (place) => (radii().length <= MOST_NUMBERED || place % 4 === 0 ? radii()[place].replace("/255", "") : "");
const isAttacked = () => view.eps !== "0";
const attackWords = () => `${setup.norms[view.norm].text}, PGD-${view.steps}, ${view.loss}, seed ${setup.seed}`;
const ball = (eps) => `${setup.norms[view.norm].prefix}eps ${eps}`;
const asked = (eps, { image, label } = view) => ({ image, label, norm: view.norm, eps, steps: view.steps, loss: view.loss });
const keyOf = (eps, subject) => JSON.stringify(asked(eps, subject));
// Characters of a name that fits into a line of a phone.
const LONGEST_NAME = 24;

// Text in which commands stand as code, and names are not broken at their hyphens unless they are long.
function write(node, text) {
  const parts = text.split(/(`[^`]*`|\w+(?:-\w+)+)/);
  const mark = (part) => (part.startsWith("`") ? element("code", part.slice(1, -1)) : element("span", part, part.length > LONGEST_NAME ? "" : "name"));
  node.replaceChildren(...parts.map((part, place) => (place % 2 ? mark(part) : part)));
}

const list = (words) => (words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`);

function element(tag, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
}

// ---- cells

const cellOf = (model, eps) => store.get(keyOf(eps))?.[model];
const isWhole = (eps, subject) => {
  const cells = store.get(keyOf(eps, subject));
  return cells !== undefined && setup.models.every((_, model) => cells[model]?.done);
};
const isRight = (cell) => cell.prediction === view.label;
const isMissing = (error) => error.name === "AbortError";

async function pixelsOf(address) {
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  [scratch.canvas.width, scratch.canvas.height] = [picture.naturalWidth, picture.naturalHeight];
  scratch.drawImage(picture, 0, 0);
  return scratch.getImageData(0, 0, scratch.canvas.width, scratch.canvas.height);
}

// Pictures are decoded once: when they are shown, or before, when there is nothing else to do.
async function prepare(cells) {
  await Promise.all(
    cells.filter(Boolean).map(async (cell) => {
      cell.pixels ??= {};
      for (const [name, address] of [["perturbation", cell.perturbation], [view.rule, cell.gradient[view.rule]]]) {
        cell.pixels[name] ??= await pixelsOf(address);
      }
    }),
  );
}

async function compute(eps, signal, { quiet = false, subject = view } = {}) {
  if (isWhole(eps, subject)) return;
  const key = keyOf(eps, subject);
  const cells = [];
  for await (const message of source.cells(asked(eps, subject), signal)) {
    if (signal.aborted) return;
    if (!quiet) tell(`step ${message.step} of ${view.steps}, ${setup.models[message.model].name}`, progressOf(message));
    if (!message.cell) continue;
    cells[message.model] = { ...message.cell, files: message.files, step: message.step, done: message.step === view.steps };
    if (quiet || source !== live) continue;
    store.set(key, cells);
    await draw();
  }
  store.set(key, cells);
  if (store.size > MOST_CELLS) store.delete(store.keys().next().value);
}

const progressOf = ({ model, step }) => (step + model / setup.models.length) / (view.steps + 1);

// From coarse to fine, so that the radius at which a model fails is soon known roughly.
function order() {
  const count = radii().length;
  const places = [];
  for (let stride = 1 << Math.ceil(Math.log2(count)); stride >= 1; stride >>= 1) {
    for (let place = 0; place < count; place += stride) if (!places.includes(place)) places.push(place);
  }
  return places.map((place) => radii()[place]);
}

// ---- a move: all older work ends, the view is computed and drawn, then the other radii

async function move(changes = {}) {
  turn.abort();
  turn = new AbortController();
  const { signal } = turn;
  hideError();
  byId("cards").setAttribute("aria-busy", "true");
  try {
    const isNew = changes.image !== undefined || !photo;
    Object.assign(view, changes);
    if (isNew) await lookAt(view.image, signal, changes.label);
    if (signal.aborted) return;
    showControls();
    if (source === live) await draw(); // what is known already, at once
    await compute("0", signal, { quiet: isNew === false });
    await compute(view.eps, signal);
    if (source !== live) for (const eps of radii()) await compute(eps, signal);
    if (signal.aborted) return;
    await draw();
    await showDeletions(signal);
    tell("");
    for (const eps of order()) {
      if (!isWhole(eps)) {
        tell(ball(eps), radii().filter((one) => isWhole(one)).length / radii().length);
        await compute(eps, signal, { quiet: true });
        if (signal.aborted) return;
        showVerdict();
      }
      await prepare(store.get(keyOf(eps)));
      if (signal.aborted) return;
    }
    tell("");
  } catch (error) {
    if (!isMissing(error) && !signal.aborted) showError(error);
  }
}

async function lookAt(key, signal, label) {
  const answer = await source.image(key, signal);
  photo = await pixelsOf(answer.picture);
  paint(byId("photo"), photo);
  view.label = label ?? answer.label;
}

// ---- images: the next that fits class and outcome

async function find(step, start = isOwn() ? -1 : Number(view.image)) {
  turn.abort();
  turn = new AbortController();
  const { signal } = turn;
  const count = setup.labels.length;
  const place = (tried) => (step ? (start + step * tried + count * MOST_TRIED) % count : Math.floor(Math.random() * count));
  const outcome = OUTCOMES[view.outcome];
  const limit = Math.min(view.outcome && source === live ? MOST_TRIED : count * (step ? 1 : 20), 100000);
  hideError();
  byId("none").textContent = "";
  try {
    for (let tried = 1; tried <= limit; tried += 1) {
      const image = place(tried);
      if (view.class !== "" && setup.labels[image] !== Number(view.class)) continue;
      if (view.outcome && !(await fits(outcome, image, signal))) {
        if (signal.aborted) return;
        continue;
      }
      await move({ image: String(image) });
      return;
    }
    tell("");
    showControls();
    byId("none").textContent = `None of ${Math.min(limit, count)} images fits.`;
  } catch (error) {
    if (!isMissing(error)) showError(error);
  }
}

// Nothing withstands, or fails under, an attack that there is not.
const isAsked = ({ needs }) => isAttacked() || !needs.includes("eps");

async function fits(outcome, image, signal) {
  const subject = { image: String(image), label: setup.labels[image] };
  tell(`looking at image ${image}`);
  const answers = {};
  for (const [name, eps] of [["0", "0"], ["eps", view.eps]]) {
    if (outcome.needs.includes(name)) await compute(eps, signal, { quiet: true, subject });
    answers[name] = (store.get(keyOf(eps, subject)) ?? []).map(({ prediction }) => prediction === subject.label);
  }
  return !signal.aborted && isAsked(outcome) && outcome.fits(answers["0"], answers.eps);
}

// ---- what is drawn

function tell(text, share) {
  byId("doing").textContent = text;
  byId("progress").hidden = text === "";
  if (share === undefined) byId("progress").removeAttribute("value");
  else byId("progress").value = share;
}

function showError(error) {
  byId("error").textContent = error.message === "Failed to fetch" ? "irt explore has ended: start it again." : error.message;
  byId("error").hidden = false;
  tell("");
}

function hideError() {
  byId("error").hidden = true;
}

const isOwn = () => !/^\d+$/.test(view.image);

function showScale() {
  byId("ticks").replaceChildren(...radii().map((_, place) => element("span", numberAt(place))));
  byId("unit").textContent = unit();
  byId("strip-unit").textContent = unit() && ` in ${unit()}`;
}

// How many images each class and each outcome leave beside the other filter; of outcomes only where all are known.
function showCounts() {
  const answers = source.answers && setup.labels.map((_, image) => ["0", view.eps].map((eps) => source.answers(image, eps)));
  const hasOutcome = (name, image) => !answers || (isAsked(OUTCOMES[name]) && OUTCOMES[name].fits(...answers[image]));
  const hasClass = (name, image) => name === "" || setup.labels[image] === Number(name);
  const images = setup.labels.map((_, image) => image);
  const tally = new Map();
  for (const image of images) if (hasOutcome(view.outcome, image)) tally.set(setup.labels[image], (tally.get(setup.labels[image]) ?? 0) + 1);
  for (const option of byId("class").options) if (option.value !== "") showCount(option, className(Number(option.value)), tally.get(Number(option.value)) ?? 0);
  if (!answers) return;
  for (const option of byId("outcome").options) {
    const count = images.filter((image) => hasClass(view.class, image) && hasOutcome(option.value, image)).length;
    if (option.value !== "") showCount(option, OUTCOMES[option.value].text, count);
  }
}

function showCount(option, text, count) {
  option.textContent = `${text} (${count})`;
  option.disabled = count === 0 && !option.selected;
}

function showControls() {
  showScale();
  byId("eps").max = radii().length - 1;
  byId("eps").value = radii().indexOf(view.eps);
  byId("norm-text").textContent = setup.norms[view.norm].text;
  byId("eps-text").textContent = view.eps;
  byId("eps").setAttribute("aria-valuetext", ball(view.eps));
  for (const name of ["norm", "steps", "loss", "rule", "sign", "class", "outcome", "label"]) byId(name).value = view[name];
  if (source.answers) showCounts();
  byId("none").textContent = "";
  byId("fixed").textContent = `This page holds one attack: ${attackWords()}; gradient scale ${view.rule}. For others run irt explore.`;
  const levels = view.norm === "linf" && view.eps.endsWith("/255") ? ` At eps ${view.eps} no value of a pixel, from 0 to 255, changes by more than ${view.eps.replace("/255", "")}.` : "";
  byId("basis").textContent = `For this one image and one attack: ${attackWords()}.${levels}`;
  byId("truth").hidden = !isOwn();
  byId("caption").textContent = isOwn() ? `your image, as ${className(view.label)}` : `image ${Number(view.image) + 1} of ${setup.labels.length} (index ${view.image}): ${className(view.label)}`;
  byId("photo").setAttribute("aria-label", byId("caption").textContent);
  showCommands();
  clearTimeout(addressTimer);
  addressTimer = setTimeout(showAddress, 200);
}

// Browsers refuse an address that changes with each move of a slider.
function showAddress() {
  const fields = Object.entries(view).filter(([name, value]) => value !== null && value !== "" && (name !== "label" || isOwn()));
  history.replaceState(null, "", `#${new URLSearchParams(fields)}`);
}

// Pixels as they are, which the style enlarges; enlarged here where a line is to be drawn around a position.
function paint(canvas, pixels) {
  [canvas.width, canvas.height] = [pixels.width, pixels.height];
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

function enlarge(canvas) {
  const small = element("canvas");
  paint(small, canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height));
  const scale = Math.max(1, Math.round(SIDE / small.width));
  [canvas.width, canvas.height] = [small.width * scale, small.height * scale];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

function adversarialPixels(cell) {
  const pixels = new ImageData(new Uint8ClampedArray(photo.data), photo.width, photo.height);
  const changes = cell.pixels.perturbation.data;
  for (let place = 0; place < changes.length; place += 1) {
    if (place % 4 < 3) pixels.data[place] += cell.change * (2 * changes[place] - 255);
  }
  return pixels;
}

function gradientPixels(cell) {
  const pixels = cell.pixels[view.rule];
  if (view.sign === "plus") return pixels;
  return new ImageData(pixels.data.map((value, place) => (place % 4 < 3 ? 255 - value : value)), pixels.width, pixels.height);
}

// The darker a position, the less of the weights it has; `largest` stays as it is.
function shade(canvas, weights, largest, [rows, columns]) {
  const context = canvas.getContext("2d");
  const [width, height] = [canvas.width / columns, canvas.height / rows];
  weights.forEach((weight, place) => {
    context.fillStyle = `rgba(0, 0, 0, ${(0.75 * (1 - weight / largest)).toFixed(3)})`;
    context.fillRect((place % columns) * width, Math.floor(place / columns) * height, width, height);
  });
}

function outline(canvas, [rows, columns]) {
  if (view.position === null || !rows) return;
  enlarge(canvas);
  const [row, column] = placeIn([rows, columns]);
  const context = canvas.getContext("2d");
  const box = [(column * canvas.width) / columns, (row * canvas.height) / rows, canvas.width / columns, canvas.height / rows];
  for (const [color, width] of [["#000", 7], ["#fff", 3]]) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.strokeRect(...box);
  }
}

// A position is a place in the picture, as shares of its height and width: grids of models may differ.
const positionShares = () => view.position.split(",").map(Number);
const placeIn = ([rows, columns]) => {
  const [y, x] = positionShares();
  return [Math.min(rows - 1, Math.floor(y * rows)), Math.min(columns - 1, Math.floor(x * columns))];
};
const positionIn = (grid) => {
  const [row, column] = placeIn(grid);
  return row * grid[1] + column;
};

function choose(row, column, [rows, columns]) {
  const share = (place, count) => ((Math.min(count - 1, Math.max(0, place)) + 0.5) / count).toFixed(4);
  view.position = `${share(row, rows)},${share(column, columns)}`;
  refresh();
}

function rankPixels(ranks, [rows, columns]) {
  const pixels = new ImageData(columns, rows);
  ranks.forEach((rank, place) => {
    const at = (rank / Math.max(1, ranks.length - 1)) * (VIRIDIS.length - 1);
    const low = Math.min(VIRIDIS.length - 2, Math.floor(at));
    for (let channel = 0; channel < 3; channel += 1) {
      const [from, to] = [VIRIDIS[low][channel], VIRIDIS[low + 1][channel]];
      pixels.data[4 * place + channel] = from + (at - low) * (to - from);
    }
    pixels.data[4 * place + 3] = 255;
  });
  return pixels;
}

const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Attention on the natural image against rank, the most robust position at the left, and what all would have alike.
function plot(canvas, natural, ranks, chosen) {
  [canvas.width, canvas.height] = [SIDE, SIDE];
  const context = canvas.getContext("2d");
  const [left, bottom] = [4, SIDE - 22];
  context.fillStyle = ink("--page");
  context.fillRect(0, 0, SIDE, SIDE);
  const count = natural.length;
  const width = (SIDE - 2 * left) / count;
  const top = Math.max(...natural, 2 / count);
  const y = (weight) => bottom - (weight / top) * (bottom - 10);
  natural.forEach((weight, place) => {
    context.fillStyle = place === chosen ? ink("--below") : ink("--link");
    context.fillRect(left + ranks[place] * width, y(weight), Math.max(1, width - 1), bottom - y(weight));
  });
  context.strokeStyle = ink("--quiet");
  context.setLineDash([6, 5]);
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(left, y(1 / count));
  context.lineTo(SIDE - left, y(1 / count));
  context.stroke();
  context.fillStyle = ink("--quiet");
  context.font = "17px system-ui, sans-serif";
  context.fillText("robust", left, SIDE - 4);
  context.textAlign = "right";
  context.fillText("fragile", SIDE - left, SIDE - 4);
}

function tile(caption, label, draw, { plain = false, grid } = {}) {
  const figure = element("figure");
  const canvas = element("canvas", undefined, plain ? "plot" : undefined);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  draw(canvas);
  if (!plain && grid?.[0]) {
    outline(canvas, grid);
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect();
      const at = (offset, length, count) => Math.floor((offset / length) * count);
      choose(at(event.clientY - box.top, box.height, grid[0]), at(event.clientX - box.left, box.width, grid[1]), grid);
    });
  }
  figure.append(canvas, element("figcaption", caption));
  return figure;
}

function tiles(model, natural, cell) {
  const { grid, weights, name } = model;
  const box = element("div", undefined, "tiles");
  const largest = Math.max(...(natural.attention ?? [0]), ...(cell.attention ?? [0]));
  const withWeights = (pixels, attention) => (canvas) => {
    paint(canvas, pixels);
    if (attention && largest > 0) shade(canvas, attention, largest, grid);
  };
  const laid = weights ? `, ${weights}` : "";
  const brightest = ({ attention, prediction }) => (attention ? `, ${kindOf(weights, prediction)} up to ${percent(Math.max(...attention))}` : weights ? `, no ${weights}` : "");
  const add = (...parts) => box.append(tile(...parts));
  add(`natural${brightest(natural)}`, `${name}: natural image${laid}`, withWeights(photo, natural.attention), { grid });
  if (isAttacked()) add(`adversarial${brightest(cell)}`, `${name}: adversarial image${laid}`, withWeights(adversarialPixels(cell), cell.attention), { grid });
  const change = view.norm === "linf" ? view.eps : String(Number(cell.change.toPrecision(2)));
  if (isAttacked()) add(`perturbation, black \u2212${change}, white +${change}`, `${name}: perturbation`, (canvas) => paint(canvas, cell.pixels.perturbation), { grid });
  const sign = view.sign === "plus" ? "+g" : "\u2212g";
  add(`gradient${isAttacked() ? " at the adversarial image" : ""}, ${sign}, ${view.rule}`, `${name}: gradient map`, (canvas) => paint(canvas, gradientPixels(cell)), { grid });
  if (cell.ranks) {
    add("robustness ranks, bright: robust", `${name}: robustness ranks of ${cell.ranks.length} positions`, (canvas) => paint(canvas, rankPixels(cell.ranks, grid)), { grid });
    if (natural.attention) {
      const chosen = view.position === null ? -1 : positionIn(grid);
      const correlation = cell.spearman === null ? "" : `, Spearman ${signed(cell.spearman)}${fewPositions(cell)}`;
      add(`${weights} by rank${correlation}`, `${name}: ${weights} against robustness rank${correlation}`, (canvas) => plot(canvas, natural.attention, cell.ranks, chosen), { plain: true });
    }
  }
  return box;
}

function mark(cell) {
  const right = isRight(cell);
  const share = cell.answers.find(([place]) => place === cell.prediction)?.[1];
  return [`${className(cell.prediction)} ${right ? "\u2713" : "\u2717"} ${percent(share)}`, right ? "right" : "wrong"];
}

function positionLine(model, place, natural, cell) {
  const position = positionIn(model.grid);
  const line = element("p", undefined, "at-position");
  const parts = [];
  if (natural.attention && cell.attention) parts.push(`${model.weights} ${percent(natural.attention[position])} \u2192 ${percent(cell.attention[position])}`);
  if (cell.ranks) parts.push(`robustness rank ${cell.ranks[position]} of 0 to ${cell.ranks.length - 1}`);
  const deleted = cell.deleted?.[position];
  if (deleted) {
    const change = deleted.prediction === cell.prediction ? "still" : "then";
    parts.push(`deleted: ${change} ${className(deleted.prediction)} ${deleted.prediction === view.label ? "\u2713" : "\u2717"}, ${className(view.label)} ${percent(cell.truth)} \u2192 ${percent(deleted.truth)}`);
  }
  line.textContent = parts.join("; ");
  line.dataset.model = place;
  return line;
}

async function draw() {
  const cells = setup.models.map((_, model) => [cellOf(model, "0"), cellOf(model, view.eps)]);
  const key = keyOf(view.eps);
  await prepare(cells.flat());
  if (key !== keyOf(view.eps)) return;
  showVerdict();
  showCommands();
  const cards = setup.models.map((model, place) => {
    const [natural, cell] = cells[place];
    const before = byId("cards").children[place];
    if (before && !(natural && cell)) {
      before.classList.add("stale"); // until there is something to show in its place
      return before;
    }
    const card = element("li");
    const title = element("h3");
    title.append(chip(model), model.name);
    card.append(title);
    const sees = element("p", undefined, "sees");
    card.append(sees);
    if (natural && cell) {
      [sees.textContent, sees.className] = mark(cell);
      sees.classList.add("sees");
      if (!isRight(cell)) sees.append(` (${className(view.label)} ${percent(cell.truth)})`);
      if (!cell.done) sees.append(`, step ${cell.step}`);
      card.append(tiles(model, natural, cell));
      if (view.position !== null && model.grid[0]) card.append(positionLine(model, place, natural, cell));
    } else {
      sees.textContent = "computing \u2026";
    }
    return card;
  });
  byId("cards").replaceChildren(...cards);
  byId("cards").setAttribute("aria-busy", String(!isWhole(view.eps)));
  showPosition();
}

function refresh() {
  showControls();
  draw().then(() => showDeletions(turn.signal)).catch(showError);
}

function showPosition() {
  const grid = setup.models.find((model) => model.grid[0])?.grid;
  if (view.position === null || !grid) {
    byId("position-text").textContent = "";
    return;
  }
  const [row, column] = placeIn(grid);
  byId("position-text").textContent = `Position: row ${row + 1} of ${grid[0]}, column ${column + 1} of ${grid[1]}. Below each model: its weight, natural and attacked, its rank, 1 the most robust, and the answer when it is deleted from the adversarial image.`;
}

async function showDeletions(signal) {
  if (view.position === null) return;
  const cells = store.get(keyOf(view.eps));
  const grids = setup.models.map((model) => model.grid);
  if (!cells || !isWhole(view.eps)) return;
  const places = [...new Set(grids.filter((grid) => grid[0]).map(positionIn))];
  try {
    for (const position of places) {
      if (cells.every((cell, model) => !grids[model][0] || positionIn(grids[model]) !== position || cell.deleted?.[position])) continue;
      tell("deleting the position");
      for await (const { model, ...answer } of source.deletions(asked(view.eps), position, signal)) {
        (cells[model].deleted ??= {})[position] = answer;
      }
    }
    if (!signal.aborted) {
      tell("");
      await draw();
    }
  } catch (error) {
    if (!isMissing(error) && !signal.aborted) showError(error);
  }
}

const chip = (model) => {
  const dot = element("span", undefined, "chip");
  dot.style.background = model.color;
  return dot;
};

// ---- which model is robust, and from which eps it fails

// The last radius at which it is right before it is first wrong, and that one; null for either that is not known.
function limits(model) {
  const known = radii().map((eps) => cellOf(model, eps)).map((cell) => (cell?.done ? isRight(cell) : null));
  const wrong = known.indexOf(false);
  const before = wrong < 0 ? known : known.slice(0, wrong);
  const right = before.lastIndexOf(true);
  return { known, right, wrong, isSure: !before.includes(null) };
}

function failure({ right, wrong, isSure }) {
  const places = radii();
  if (wrong === 0) return "without attack";
  if (wrong < 0) return isSure ? `not up to ${places.at(-1)}` : "\u2026";
  const isNext = wrong === right + 1 && isSure;
  if (!isNext) return `by ${places[wrong]} \u2026`;
  return isFine() ? `from ${places[wrong]}` : `between ${places[right]} and ${places[wrong]}`;
}

// Radii in even steps leave nothing between two of them that anybody would ask for.
const isFine = () => radii().every((eps, place, all) => Math.abs((number(eps) * (all.length - 1)) / number(all.at(-1)) - place) < 1e-2);

function strip(known, failureText) {
  const box = element("div", undefined, "strip");
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", `fails ${failureText}`);
  known.forEach((right, place) => {
    const part = element("i", numberAt(place).replace(/^0\./, "."), right === null ? "" : right ? "right" : "wrong");
    if (radii()[place] === view.eps) part.classList.add("now");
    part.title = `${ball(radii()[place])}: ${right === null ? "not computed yet" : right ? "right" : "wrong"}`;
    part.addEventListener("click", () => move({ eps: radii()[place] }));
    box.append(part);
  });
  return box;
}

function showVerdict() {
  const all = setup.models.map((_, model) => limits(model));
  const verdict = judge(all);
  const rows = setup.models.map((model, place) => {
    const [natural, cell] = [cellOf(place, "0"), cellOf(place, view.eps)];
    const text = failure(all[place]);
    const row = element("tr", undefined, verdict.isClaim && verdict.best.includes(place) ? "best" : "");
    const name = element("th");
    name.scope = "row";
    name.append(chip(model), model.name);
    if (model.doubts.length) {
      const doubt = element("small", " in doubt");
      doubt.title = model.doubts.join(" ");
      name.append(doubt);
    }
    const sees = [[natural, "natural"], [cell, "attacked"]].map(([answer, kind]) => {
      const [words, outcome] = kind === "attacked" && !isAttacked() ? ["no attack", ""] : answer ? mark(answer) : ["\u2026", ""];
      return element("td", words, `${kind} ${outcome}`);
    });
    const stripCell = element("td", undefined, "strip-cell");
    stripCell.append(strip(all[place].known, text));
    row.append(name, ...sees, stripCell, element("td", text, "fails"), movedCell(model, natural, cell));
    return row;
  });
  byId("summary").classList.toggle("natural-only", !isAttacked());
  byId("summary").tBodies[0].replaceChildren(...rows);
  write(byId("headline"), headline(all, verdict));
  byId("close").hidden = !verdict.isClose;
  byId("star").hidden = !verdict.isClaim;
  byId("claim").textContent = claim();
  byId("headline").title = verdict.isClose ? byId("close").textContent : "";
}

// Models in order of the last radius that they withstand, and whether the first are more robust than all others: not
// where they lead by one radius and, there, by less than CLOSE.
function judge(all) {
  const rights = all.map(({ right }) => right);
  const [most, least] = [Math.max(...rights), Math.min(...rights)];
  const at = (right) => rights.flatMap((other, place) => (other === right ? [place] : []));
  const best = at(most);
  const isSure = all.every((limit) => limit.isSure);
  const margin = (place) => marginOf(cellOf(place, radii()[most]));
  const close = isSure && most > 0 ? at(most - 1).filter((place) => Math.min(...best.map(margin)) - margin(place) < CLOSE) : [];
  const isLed = isSure && most > 0 && least < most;
  return { most, best, close, worst: at(least), isSure, isClaim: isLed && !close.length, isClose: isLed && close.length > 0 };
}

// By how much the true class is likelier than any other, below zero for a wrong answer.
function marginOf({ answers, truth }) {
  return truth - Math.max(...answers.filter(([place]) => place !== view.label).map(([, share]) => share));
}

// What the paper's Figure 2 says, against the correlation of each model that has attention.
function claim() {
  const told = setup.models.flatMap((model, place) => {
    const cell = cellOf(place, view.eps);
    const isTold = isAttacked() && model.weights === "attention" && typeof cell?.spearman === "number" && cell.spearman !== 0;
    return isTold ? [{ holds: cell.spearman > 0, text: `${model.name} (Spearman ${signed(cell.spearman)}${fewPositions(cell)})` }] : [];
  });
  const phrases = [[true, "holds"], [false, "does not hold"]].flatMap(([holds, words]) => {
    const texts = told.filter((one) => one.holds === holds).map(({ text }) => text);
    return texts.length ? [`${words} in ${list(texts)}`] : [];
  });
  return phrases.length ? `The paper claims that more attention goes to more robust features. On this image, at ${ball(view.eps)}, that ${phrases.join(", and ")}.` : "";
}

const fewPositions = ({ ranks }) => (ranks.length < setup.few_positions ? ` of only ${ranks.length} positions` : "");

// Weights of positions, with the class that they are of where they are of one.
const kindOf = (weights, prediction) => (OF_PREDICTED_CLASS.includes(weights) ? `${weights} of ${className(prediction)}` : weights);

const isComparable = ({ weights }, natural, cell) => !OF_PREDICTED_CLASS.includes(weights) || natural?.prediction === cell?.prediction;

function movedCell(model, natural, cell) {
  if (!isAttacked()) return element("td", "\u2013", "moved");
  if (typeof cell?.moved !== "number" || model.weights === "attention") return element("td", percent(cell?.moved), "moved");
  if (isComparable(model, natural, cell)) return element("td", `${percent(cell.moved)} (${model.weights})`, "moved");
  return element("td", `\u2013 (${kindOf(model.weights, natural.prediction)}, then ${className(cell.prediction)})`, "moved");
}

function headline(all, { most, best, close, worst, isSure, isClaim }) {
  const names = (places) => list(places.map((place) => `"${setup.models[place].name}"`)); // `at` is also a word
  const isAlone = all.length === 1;
  if (!isSure) return `PGD-${view.steps} on ${className(view.label)}: looking for the eps at which ${isAlone ? "the" : "each"} model fails \u2026`;
  if (most < 0) return `${isAlone ? names(best) : "Every model"} is wrong without an attack: this ${className(view.label)} is seen as something else.`;
  if (most === 0 && isAlone) return `${names(best)}: right without an attack, wrong at ${ball(radii()[1])}.`;
  if (most === 0) return `No model withstands ${ball(radii()[1])}. Right without an attack: ${names(best)}.`;
  if (best.length === all.length) return `${names(best)}: right up to ${ball(radii()[most])}${isAlone ? "" : ", none further than another"}.${motion()}`;
  const winners = `${names(best)}, right up to ${ball(radii()[most])}`;
  if (!isClaim) return `Too close to call: ${winners}, where ${names(close)} failed by less than ${100 * CLOSE} percentage points.${motion()}`;
  return `Most robust here: ${winners}. First to fail: ${names(worst)}, ${failure(all[worst[0]])}.${motion()}`;
}

// Only what is alike is compared: attention where some model has it, else what stands in its place.
function motion() {
  const kinds = setup.models.map(({ weights }) => weights);
  const kind = kinds.includes("attention") ? "attention" : kinds.find(Boolean);
  const moved = setup.models.flatMap((model, place) => {
    const [natural, cell] = [cellOf(place, "0"), cellOf(place, view.eps)];
    const isAlike = model.weights === kind && typeof cell?.moved === "number" && isComparable(model, natural, cell);
    return isAlike ? [{ name: model.name, share: cell.moved }] : [];
  });
  if (!moved.length || !isAttacked()) return "";
  moved.sort((a, b) => b.share - a.share);
  const shown = moved.length > 2 ? [moved[0], moved.at(-1)] : moved;
  const some = moved.length === setup.models.length ? "" : kind === "attention" ? ", of the models that have it" : ", of models whose class stays";
  return ` ${kind[0].toUpperCase()}${kind.slice(1)} moved at ${ball(view.eps)}${some}: ${list(shown.map(({ name, share }) => `${percent(share)} in ${name}`))}.`;
}

// ---- how to get these numbers

// For each number the command that stores it and, once the view is computed, the one that reads it from the file.
function showCommands() {
  const row = Number(view.image);
  const limit = setup.shuffled ? row + 1 : 0;
  const data = [setup.options, setup.split === "test" ? "" : `--split ${setup.split}`, limit ? `--limit ${limit}` : "", setup.seed ? `--seed ${setup.seed}` : ""];
  const norm = view.norm === "linf" ? "" : ` --norm ${view.norm}`;
  const weights = setup.weights ? ` --spatial-weight ${setup.weights}` : "";
  const attack = `--eps ${view.eps}${norm} --steps ${view.steps}${weights}`;
  const isUsual = view.loss === usualLoss();
  const readings = Object.entries(setup.losses).map(([loss, { option }]) => `--${option} ${loss === view.loss ? view.steps : "none"}`).join(" ");
  const all = setup.models;
  const withPositions = all.filter(({ weights: kind }) => kind);
  const questions = [["what the models see: prediction_natural and prediction", "robustness", `evaluate SUBJECT --eps ${view.eps}${norm} ${readings}`, all]];
  if (isUsual && withPositions.length) {
    questions.push(
      ["attention, attention_adversarial, spearman; the position of the smallest distance has rank 0", "attention-rank", `analyze attention-rank SUBJECT ${attack}`, withPositions],
      ["attention moved: distance", "attention-maps", `analyze attention-maps SUBJECT ${attack}`, withPositions],
    );
  }
  if (isUsual) questions.push([`the gradient map at eps 0: row ${row} of per_image/map, a picture`, "", "analyze gradient-maps SUBJECT", all]);
  const fileOf = (model, question) => cellOf(all.indexOf(model), view.eps)?.files?.[question];
  const end = limit && limit < setup.images ? `-first${limit}.h5` : ".h5";
  const lines = questions.flatMap(([what, question, words, models]) => [
    `# ${what}`,
    ...subjectsOf(models).map((subject) => ["irt", words.replace("SUBJECT", () => subject), ...data].filter(Boolean).join(" ")),
    ...models.map((model) => fileOf(model, question)).filter(Boolean).map((file) => `irt show ${file}${end} --image ${row}`),
  ]);
  if (limit && IS_PLAIN.test(setup.source)) lines.push("# probabilities of the classes, which are in no file: natural, then attacked", ...all.filter(({ words }) => IS_PLAIN.test(words)).map(({ words }) => probabilityLine(words, row)));
  byId("commands").textContent = isOwn() ? `irt explore ${subjectsOf(all).join(" ")} ${setup.options}${weights}${norm} PICTURE` : lines.join("\n");
  byId("how-text").textContent = isOwn()
    ? "An image of your own is in no data set: this opens the page on it."
    : `The first command of each part writes a file, and irt show prints what that says of this image, its row ${row}. Probabilities of classes, and what becomes of them when one position is deleted, are in no file; the last lines print the probabilities. Attacks begin where those of irt do, seed ${setup.seed}; the last bits of a number may differ, because irt computes many images at once.${isUsual ? "" : ` The other analyses attack the ${usualLoss()}: choose that loss.`}`;
}

// What commands call some models: all checkpoints at once, and each of the others by itself.
function subjectsOf(models) {
  const words = models.map((model) => model.words);
  const paths = words.filter((each) => !each.startsWith("--"));
  return [...(paths.length ? [paths.join(" ")] : []), ...words.filter((each) => each.startsWith("--"))];
}

const IS_PLAIN = /^[\w./][\w./-]*$/; // what needs no quotes inside quotes

function probabilityLine(path, row) {
  const { purpose } = setup.losses[view.loss];
  const [norm, loss] = [view.norm === "linf" ? "" : `, norm="${view.norm}"`, view.loss === usualLoss() ? "" : `, loss="${view.loss}"`];
  const noise = setup.seed || purpose ? `, ir.per_image_noise(${setup.seed}, range(${row + 1})${purpose ? `, ${purpose}` : ""})` : "";
  const attacked = isAttacked() ? `; print(model(ir.PGD(eps=${view.eps}, steps=${view.steps}${norm}${loss})(model, images, labels${noise}))[${row}].softmax(0))` : "";
  return `python -c 'import interpret_robust as ir; model = ir.load("${path}"); images, labels = ir.samples("${setup.source}", ${row + 1}, split="${setup.split}"); print(model(images)[${row}].softmax(0))${attacked}'`;
}

// ---- the view as a picture

async function saveView() {
  const [width, pad, line] = [300, 20, 22];
  const cards = [...document.querySelectorAll("#cards > li")];
  const figures = Math.max(...cards.map((card) => card.querySelectorAll("figure").length));
  const side = (width - pad) / 2;
  const top = pad + 4 * line;
  const canvas = element("canvas");
  canvas.width = Math.max(3 * width, cards.length * width) + pad;
  canvas.height = top + 3 * line + Math.ceil(figures / 2) * (side + 2 * line) + pad;
  const context = canvas.getContext("2d");
  context.fillStyle = ink("--page");
  context.fillRect(0, 0, canvas.width, canvas.height);
  const write = (text, x, y, { bold = false, size = 15, color = "--ink", room = width - pad } = {}) => {
    context.font = `${bold ? "600 " : ""}${size}px system-ui, sans-serif`;
    context.fillStyle = ink(color);
    const words = text.split(" ");
    let row = "";
    for (const word of words) {
      if (row && context.measureText(`${row} ${word}`).width > room) {
        context.fillText(row, x, y);
        [row, y] = [word, y + size * 1.2];
      } else row = row ? `${row} ${word}` : word;
    }
    context.fillText(row, x, y);
  };
  const limitsOf = setup.models.map((_, model) => failure(limits(model)));
  write(`${setup.dataset}, ${byId("caption").textContent}; ${ball(view.eps)}, ${attackWords()}`, pad, pad + line, { bold: true, size: 18, room: canvas.width - 2 * pad });
  write(byId("headline").textContent, pad, pad + 2 * line, { room: canvas.width - 2 * pad });
  cards.forEach((card, place) => {
    const x = pad + place * width;
    write(setup.models[place].name, x, top + line, { bold: true, size: 17 });
    write(card.querySelector(".sees").textContent, x, top + 2 * line);
    write(`fails ${limitsOf[place]}`, x, top + 3 * line, { color: "--quiet" });
    card.querySelectorAll("figure").forEach((figure, at) => {
      const [left, y] = [x + (at % 2) * (side + pad / 4), top + 3.5 * line + Math.floor(at / 2) * (side + 2 * line)];
      context.imageSmoothingEnabled = false;
      context.drawImage(figure.querySelector("canvas"), left, y, side - pad / 4, side - pad / 4);
      write(figure.querySelector("figcaption").textContent, left, y + side + 8, { size: 12, color: "--quiet", room: side - pad / 4 });
    });
  });
  const link = element("a");
  link.href = canvas.toDataURL("image/png");
  link.download = `explore-${setup.dataset}-${view.image}-${ball(view.eps).toLowerCase().replace(" eps ", "-eps").replace("eps ", "eps").replace("/", "-")}.png`;
  link.click();
}

// ---- controls

function readAddress() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const changes = {};
  for (const name of ["image", "norm", "eps", "loss", "rule", "sign", "outcome", "class"]) if (fields.has(name)) changes[name] = fields.get(name);
  if (fields.has("label")) changes.label = Number(fields.get("label"));
  if (Number(fields.get("steps")) >= 1 && source === live) changes.steps = Math.min(setup.most_steps, Math.floor(Number(fields.get("steps"))));
  const norm = setup.norms[Object.hasOwn(setup.norms, fields.get("norm")) ? fields.get("norm") : view.norm];
  const known = { norm: Object.keys(setup.norms), eps: norm.radii, loss: Object.keys(setup.losses), rule: setup.rules, sign: ["plus", "minus"], outcome: Object.keys(OUTCOMES), class: setup.classes.map((_, place) => String(place)) };
  for (const [name, choices] of Object.entries(known)) if (!choices.includes(changes[name])) delete changes[name];
  if (changes.norm) changes.eps ??= norm.eps;
  if (source !== live) {
    delete changes.loss;
    delete changes.label;
    if (!(Number(changes.image) < setup.labels.length)) delete changes.image;
  }
  if (/^0?\.\d+,0?\.\d+$/.test(fields.get("position") ?? "")) changes.position = fields.get("position");
  return changes;
}

function fill(id, choices, first) {
  byId(id).replaceChildren(...(first ? [new Option(first, "")] : []), ...choices.map(([value, text]) => new Option(text, value)));
}

const KEYS = {
  ArrowLeft: () => find(-1),
  ArrowRight: () => find(1),
  ArrowUp: () => turnEps(1),
  ArrowDown: () => turnEps(-1),
};
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function turnEps(step) {
  const place = Math.min(radii().length - 1, Math.max(0, radii().indexOf(view.eps) + step));
  return move({ eps: radii()[place] });
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, pre, summary")) return;
  const grid = setup.models.find((model) => model.grid[0])?.grid;
  if (event.key === "Escape") {
    view.position = null;
    refresh();
  } else if (event.shiftKey && STEPS[event.key] && grid) {
    const [row, column] = view.position === null ? [Math.floor(grid[0] / 2), Math.floor(grid[1] / 2)] : placeIn(grid);
    const [down, right] = view.position === null ? [0, 0] : STEPS[event.key];
    choose(row + down, column + right, grid);
  } else if (!event.shiftKey && KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
}

async function bring(file) {
  if (!file) return;
  try {
    const image = await source.upload(file);
    view.class = view.outcome = "";
    await move({ image });
  } catch (error) {
    showError(error);
  }
}

function listen() {
  byId("eps").addEventListener("input", () => move({ eps: radii()[Number(byId("eps").value)] }));
  byId("norm").addEventListener("change", () => move({ norm: byId("norm").value, eps: setup.norms[byId("norm").value].eps }));
  byId("previous").addEventListener("click", () => find(-1));
  byId("next").addEventListener("click", () => find(1));
  byId("random").addEventListener("click", () => find(0));
  byId("steps").addEventListener("change", () => move({ steps: Math.min(setup.most_steps, Math.max(1, Math.floor(Number(byId("steps").value)) || 1)) }));
  byId("loss").addEventListener("change", () => move({ loss: byId("loss").value }));
  byId("label").addEventListener("change", () => move({ label: Number(byId("label").value) }));
  for (const name of ["rule", "sign"]) {
    byId(name).addEventListener("change", () => {
      view[name] = byId(name).value;
      refresh();
    });
  }
  for (const name of ["class", "outcome"]) {
    byId(name).addEventListener("change", () => {
      view[name] = byId(name).value;
      if (view[name] === "") showControls();
      else find(1, (isOwn() ? 0 : Number(view.image)) - 1);
    });
  }
  byId("file").addEventListener("change", () => bring(byId("file").files[0]));
  byId("link").addEventListener("click", async () => {
    showAddress();
    await navigator.clipboard.writeText(location.href);
    byId("link").textContent = "copied";
    setTimeout(() => (byId("link").textContent = "copy link"), 1500);
  });
  byId("save").addEventListener("click", saveView);
  byId("settings").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("keydown", press);
  addEventListener("hashchange", () => move(readAddress()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  if (source !== live) return;
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    bring(event.dataTransfer.files[0]);
  });
}

async function begin() {
  const content = byId("baked");
  source = content ? baked(JSON.parse(content.textContent)) : live;
  setup = await source.setup();
  document.title = byId("title").textContent = `Explore ${setup.dataset}, ${setup.split} images`;
  byId("steps").max = setup.most_steps;
  fill("norm", Object.entries(setup.norms).map(([name, { text }]) => [name, text]));
  fill("loss", Object.keys(setup.losses).map((loss) => [loss, loss]));
  fill("rule", setup.rules.map((rule) => [rule, rule]));
  fill("class", setup.classes.map((name, place) => [place, name]), "any");
  fill("label", setup.classes.map((name, place) => [place, name]));
  fill("outcome", Object.entries(OUTCOMES).map(([name, { text }]) => [name, text]));
  const meanings = setup.models.filter(({ meaning }) => meaning).map(({ name, meaning }) => `${name}: ${meaning}`);
  byId("meanings").textContent = meanings.length ? `${meanings.join("; ")}.` : "";
  byId("cards").style.setProperty("--models", setup.models.length);
  const isFixed = source !== live;
  for (const part of document.querySelectorAll(".live")) part.hidden = isFixed;
  byId("fixed").hidden = !isFixed;
  const stands = OF_PREDICTED_CLASS.filter((kind) => setup.models.some(({ weights }) => weights === kind));
  if (stands.length) byId("class-note").textContent = `In its place stands ${list(stands)} of the predicted class where a model has no attention: no share is given where that class changes.`;
  write(byId("doubts"), setup.models.flatMap(({ name, doubts }) => doubts.map((doubt) => `In doubt, ${name}: ${doubt}`)).join(" "));
  write(byId("close"), `Too close to call: the model that fails last leads by one step of eps, and at the eps where the next one fails its lead is below ${100 * CLOSE} percentage points. The lead is the difference of their margins: the probability of the true class less that of the likeliest other.`);
  Object.assign(view, { image: setup.first, norm: setup.norm, eps: setup.norms[setup.norm].eps, steps: setup.steps, loss: usualLoss(), rule: setup.rules[0] });
  showCounts();
  listen();
  await move({ image: view.image, ...readAddress() });
}

begin().catch(showError);
