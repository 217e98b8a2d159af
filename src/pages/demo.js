// The soft predictions of a run's models for what is drawn. No library, no network.
"use strict";

const SIDE = 28; // pixels of a model's input, each way
const BOX = 20; // the drawing is scaled to this, as MNIST's digits are
const PEN = 22; // width of a stroke on the paper of 280 × 280
const HOTTEST = 40; // the slider goes from T = 1 to this, by its logarithm
const STEP = 10; // of the pen by keyboard, in pixels of the paper
const DECADES = 6; // logarithmic bars begin at 10 to minus this
const [PAUSE, SWEEP] = [700, 4500]; // before the opening sweep and of it, in milliseconds

const element = (id) => document.getElementById(id);
const data = JSON.parse(element("data").textContent);

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

// Little-endian f32, as every browser's machine has them.
function floats(base64) {
  return new Float32Array(bytes(base64).buffer);
}

async function inflated(base64) {
  const stream = new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The weights of a layer are whole numbers of 8 bits, and a scale for each unit. The engine multiplies
// in f32, and so does Math.fround.
async function unpacked(layer) {
  const whole = new Int8Array((await inflated(layer.weight)).buffer);
  const scale = floats(layer.scale);
  const weight = Float32Array.from(whole, (w, i) => Math.fround(w * scale[Math.floor(i / layer.inputs)]));
  return { ...layer, weight, bias: floats(layer.bias) };
}

const models = data.models;
const withPixels = (sample) => ({ ...sample, pixels: bytes(sample.pixels) });
const groups = data.groups.map((group) => ({ ...group, samples: group.samples.map(withPixels) }));
const samples = groups.flatMap((group) => group.samples);

// Of hidden layers, by the name that a model has for it.
const ACTIVATIONS = {
  relu: (z) => (z < 0 ? 0 : z),
  tanh: Math.tanh,
};

// z = W·f(…W·x + b…) + b on x = pixel·scale + shift, f the activation; W is [outputs, inputs].
function logits(model, pixels) {
  const activation = ACTIVATIONS[model.activation];
  let x = Float64Array.from(pixels, (pixel) => pixel * model.input_scale + model.input_shift);
  model.layers.forEach((layer, i) => {
    const y = new Float64Array(layer.outputs);
    const hidden = i + 1 < model.layers.length;
    for (let out = 0; out < layer.outputs; out++) {
      let sum = layer.bias[out];
      const row = out * layer.inputs;
      for (let k = 0; k < layer.inputs; k++) sum += layer.weight[row + k] * x[k];
      y[out] = hidden ? activation(sum) : sum;
    }
    x = y;
  });
  return x;
}

// softmax(z/T), the largest logit taken out first.
function softmax(z, temperature) {
  const most = Math.max(...z);
  const powers = Array.from(z, (value) => Math.exp((value - most) / temperature));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

// Ink (0 to 255, size × size) as MNIST has it: the longer side of its box scaled to 20 pixels, each
// pixel the mean of what it covers, its centre of mass in the middle of 28 × 28. Null without ink.
function normalised(ink, size) {
  let [left, top, right, bottom] = [size, size, -1, -1];
  let [mass, across, down] = [0, 0, 0];
  // integral[y][x]: the ink above and to the left of the corner (x, y).
  const wide = size + 1;
  const integral = new Float64Array(wide * wide);
  for (let y = 0; y < size; y++) {
    let line = 0;
    for (let x = 0; x < size; x++) {
      const value = ink[y * size + x];
      line += value;
      integral[(y + 1) * wide + x + 1] = integral[y * wide + x + 1] + line;
      if (value === 0) continue;
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
      mass += value;
      across += value * (x + 0.5);
      down += value * (y + 0.5);
    }
  }
  if (mass === 0) return null;
  const cell = Math.max(right - left + 1, bottom - top + 1) / BOX;
  // Between corners the integral is bilinear, because ink is constant within its pixel.
  const upTo = (x, y) => {
    [x, y] = [Math.min(Math.max(x, 0), size), Math.min(Math.max(y, 0), size)];
    const [i, j] = [Math.min(Math.floor(x), size - 1), Math.min(Math.floor(y), size - 1)];
    const [u, v] = [x - i, y - j];
    const at = (a, b) => integral[(j + b) * wide + i + a];
    const upper = at(0, 0) * (1 - u) + at(1, 0) * u;
    const lower = at(0, 1) * (1 - u) + at(1, 1) * u;
    return upper * (1 - v) + lower * v;
  };
  const pixels = new Uint8Array(SIDE * SIDE);
  for (let y = 0; y < SIDE; y++) {
    for (let x = 0; x < SIDE; x++) {
      const [x0, y0] = [across / mass + (x - SIDE / 2) * cell, down / mass + (y - SIDE / 2) * cell];
      const [x1, y1] = [x0 + cell, y0 + cell];
      const sum = upTo(x1, y1) - upTo(x0, y1) - upTo(x1, y0) + upTo(x0, y0);
      pixels[y * SIDE + x] = Math.round(Math.min(Math.max(sum / (cell * cell), 0), 255));
    }
  }
  return pixels;
}

// Paper: what is seen, with the pen; sheet: the ink alone.
const paper = element("paper");
const view = paper.getContext("2d");
const sheet = document.createElement("canvas");
sheet.width = paper.width;
sheet.height = paper.height;
const pencil = sheet.getContext("2d", { willReadFrequently: true });
pencil.lineCap = "round";
pencil.lineJoin = "round";
pencil.lineWidth = PEN;
pencil.strokeStyle = "#fff";

let pixels = new Uint8Array(SIDE * SIDE); // what the models get
let label = null; // of the test image that they get, untouched
let answers = []; // their logits
let frame = 0; // in which the answer to a change of the ink comes
let opened = false; // whether the opening image is shown, and nothing was drawn on it
const pen = { x: paper.width / 2, y: paper.height / 2, down: false, keyboard: false };

function paint(canvas, image) {
  const context = canvas.getContext("2d");
  const picture = context.createImageData(SIDE, SIDE);
  image.forEach((value, i) => picture.data.set([value, value, value, 255], 4 * i));
  context.putImageData(picture, 0, 0);
}

function look() {
  view.fillStyle = "#000";
  view.fillRect(0, 0, paper.width, paper.height);
  view.drawImage(sheet, 0, 0);
  if (pen.keyboard) {
    view.strokeStyle = pen.down ? "#e69f00" : "#56b4e9";
    view.lineWidth = 2;
    view.beginPath();
    view.arc(pen.x, pen.y, PEN / 2, 0, 2 * Math.PI);
    view.stroke();
  }
}

function stroke(from, to) {
  // What is shown to begin with makes room.
  if (opened) pencil.clearRect(0, 0, sheet.width, sheet.height);
  opened = false;
  pencil.beginPath();
  pencil.moveTo(from.x, from.y);
  pencil.lineTo(to.x, to.y);
  pencil.stroke();
  drawn();
}

// After a change of the ink: at most one answer a frame.
function drawn() {
  look();
  label = null;
  press(null);
  if (frame) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    const { data: rgba } = pencil.getImageData(0, 0, sheet.width, sheet.height);
    const ink = new Uint8Array(sheet.width * sheet.height);
    // White ink on nothing: its cover is in the alpha; a test image's is in the colour.
    ink.forEach((_, i) => (ink[i] = (rgba[4 * i] * rgba[4 * i + 3]) / 255));
    ask(normalised(ink, sheet.width) ?? new Uint8Array(SIDE * SIDE));
  });
}

function ask(image) {
  pixels = image;
  paint(element("seen"), pixels);
  answers = models.map((model, i) => {
    const start = performance.now();
    const z = logits(model, pixels);
    latencies[i].textContent = `${(performance.now() - start).toFixed(1)} ms`;
    return z;
  });
  show();
}

function clear() {
  pencil.clearRect(0, 0, sheet.width, sheet.height);
  pen.down = false;
  drawn();
}

// An image goes to the models as it is; what is drawn on it later is normalised with it.
function load(sample) {
  cancelAnimationFrame(frame);
  [frame, opened] = [0, false];
  const small = document.createElement("canvas");
  small.width = small.height = SIDE;
  paint(small, sample.pixels);
  pencil.clearRect(0, 0, sheet.width, sheet.height);
  pencil.imageSmoothingEnabled = false;
  pencil.drawImage(small, 0, 0, sheet.width, sheet.height);
  pen.down = false;
  label = sample.label;
  look();
  press(sample.index);
  ask(sample.pixels);
}

// The button of a test image shows that it is the one that is looked at.
function press(index) {
  for (const button of element("samples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.index === String(index)));
  }
}

// The chips, and the table of answers: a row for each class, a column for the label and for each model.
const chips = models.map((model) => {
  const chip = document.createElement("li");
  chip.className = model.colour;
  element("chips").append(chip);
  const head = document.createElement("th");
  head.scope = "col";
  head.className = `model ${model.colour}`;
  head.textContent = model.variant;
  element("variants").append(head);
  return chip;
});

function barCell(row, colour) {
  const cell = row.insertCell();
  cell.className = colour;
  const bar = document.createElement("i");
  bar.className = "bar";
  const text = document.createElement("span");
  cell.append(bar, text);
  return { cell, text, bar };
}

const rows = Array.from({ length: data.classes }, (_, c) => {
  const row = element("bars").insertRow();
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = c;
  row.append(head);
  return { hard: barCell(row, "hard"), soft: models.map((model) => barCell(row, model.colour)) };
});

const slider = element("temperature");
const temperature = () => HOTTEST ** (slider.value / slider.max);
const slide = (t) => (slider.value = (slider.max * Math.log(t)) / Math.log(HOTTEST));
const scale = () => document.querySelector("#scale input:checked").value;

// The length of a bar, from 0 to 1.
function length(p, largest) {
  switch (scale()) {
    case "true":
      return p;
    case "log":
      return Math.max(1 + Math.log10(p) / DECADES, 0);
    default:
      return p / largest;
  }
}

function show() {
  const t = temperature();
  element("shown").textContent = `T = ${t.toFixed(t < 10 ? 1 : 0)}`;
  slider.setAttribute("aria-valuetext", element("shown").textContent);
  const blank = pixels.every((pixel) => pixel === 0);
  element("hint").hidden = !blank;
  const said = models.map((model, m) => {
    const soft = softmax(answers[m], t);
    const largest = Math.max(...soft);
    const best = soft.indexOf(largest);
    soft.forEach((p, c) => {
      const { cell, text, bar } = rows[c].soft[m];
      cell.dataset.p = p;
      cell.classList.toggle("top", c === best && !blank);
      text.textContent = percent(p);
      bar.style.setProperty("--p", length(p, largest));
    });
    const sign = label === null ? "" : best === label ? " ✓" : " ✗";
    const name = document.createElement("b");
    name.textContent = model.variant;
    const mark = document.createElement("span");
    mark.className = best === label ? "right" : "wrong";
    mark.textContent = sign;
    chips[m].replaceChildren(name, blank ? " –" : ` ${best}`, mark);
    return `${model.variant} ${best}${sign}`;
  });
  rows.forEach(({ hard }, c) => {
    hard.text.textContent = label === null ? "" : c === label ? "100 %" : "0";
    hard.bar.style.setProperty("--p", c === label ? 1 : 0);
    hard.bar.hidden = label === null;
    hard.cell.classList.toggle("top", c === label);
  });
  if (blank) element("said").textContent = "Nothing is drawn: these are the answers to an empty image.";
  else if (label === null) element("said").textContent = `Most likely: ${said.join(", ")}. A drawing has no label.`;
  else element("said").textContent = `Labelled ${label}; most likely: ${said.join(", ")}. Hard labels say 100 % and nothing else.`;
}

function percent(p) {
  if (p < 1e-4) return `${(100 * p).toExponential(0)} %`;
  return `${(100 * p).toFixed(p < 0.0995 ? 2 : p < 0.9995 ? 1 : 2)} %`;
}

slider.addEventListener("input", show);
element("scale").addEventListener("change", show);
element("clear").addEventListener("click", clear);

// A link holds the image that the models get, and the temperature.
const url = (base64) => base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const unurl = (text) => text.replaceAll("-", "+").replaceAll("_", "/");

element("link").addEventListener("click", async () => {
  const stream = new Blob([pixels]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const parts = [`image=${url(btoa(String.fromCharCode(...packed)))}`, `t=${temperature().toFixed(2)}`];
  if (label !== null) parts.push(`label=${label}`);
  history.replaceState(null, "", `#${parts.join("&")}`);
  let copied = "";
  try {
    await navigator.clipboard.writeText(location.href);
    copied = ", and so does the clipboard";
  } catch {
    // A page from a file may not use the clipboard.
  }
  element("linked").textContent = `The address now holds this image${copied}.`;
});

// Loads what the address holds; whether it holds anything.
async function follow() {
  const parts = new URLSearchParams(location.hash.slice(1));
  try {
    const image = await inflated(unurl(parts.get("image")));
    const hot = Number(parts.get("t"));
    if (image.length !== SIDE * SIDE) return false;
    if (hot >= 1 && hot <= HOTTEST) slide(hot);
    const named = Number(parts.get("label") ?? NaN);
    load({ index: null, label: named < data.classes ? named : null, pixels: image });
    return true;
  } catch {
    return false; // no image, or a damaged one
  }
}
addEventListener("hashchange", follow);

function place(event) {
  const box = paper.getBoundingClientRect();
  const scale = paper.width / box.width;
  return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
}

let last = null; // where the pointer drew
paper.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  paper.setPointerCapture(event.pointerId);
  Object.assign(pen, { keyboard: false, down: false });
  last = place(event);
  stroke(last, last);
});
paper.addEventListener("pointermove", (event) => {
  if (last === null) return;
  for (const part of event.getCoalescedEvents?.() ?? [event]) {
    const next = place(part);
    stroke(last, next);
    last = next;
  }
});
for (const end of ["pointerup", "pointercancel"]) {
  paper.addEventListener(end, () => (last = null));
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
paper.addEventListener("keydown", (event) => {
  const move = ARROWS[event.key];
  if (!move && event.key !== " " && event.key !== "Escape") return;
  event.preventDefault();
  pen.keyboard = true;
  if (event.key === "Escape") return clear();
  const from = { x: pen.x, y: pen.y };
  if (move) {
    pen.x = Math.min(Math.max(pen.x + STEP * move[0], 0), paper.width);
    pen.y = Math.min(Math.max(pen.y + STEP * move[1], 0), paper.height);
  } else {
    pen.down = !pen.down;
  }
  if (pen.down) stroke(from, pen);
  else look();
});
paper.addEventListener("blur", () => {
  Object.assign(pen, { keyboard: false, down: false });
  look();
});

for (const group of groups) {
  const list = document.createElement("ul");
  for (const sample of group.samples) {
    const picture = document.createElement("canvas");
    picture.width = picture.height = SIDE;
    paint(picture, sample.pixels);
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.index = sample.index;
    button.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-label", `Test image ${sample.index}, labelled ${sample.label}`);
    button.append(picture);
    button.addEventListener("click", () => {
      load(sample);
      paper.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
    });
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  }
  const title = document.createElement("h3");
  title.textContent = group.title;
  const box = document.createElement("div");
  box.append(title, list);
  element("samples").append(box);
}

const latencies = models.map((model) => {
  const row = element("facts").insertRow();
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = model.variant;
  row.append(head);
  for (const fact of [
    model.widths.join("-"),
    model.parameters.toLocaleString("en"),
    `${model.test_errors} of ${model.test_examples.toLocaleString("en")}`,
    model.errors_in_bytes,
    model.answers_changed,
    model.largest_change.toPrecision(2),
    `${model.microseconds.toFixed(0)} µs`,
  ]) {
    row.insertCell().textContent = fact;
  }
  return row.insertCell();
});

// Every sample through every model, against the engine's logits.
function compare() {
  let largest = 0;
  for (const sample of samples) {
    models.forEach((model, m) => {
      logits(model, sample.pixels).forEach((z, c) => {
        largest = Math.max(largest, Math.abs(z - sample.logits[m][c]));
      });
    });
  }
  const check = element("check");
  check.dataset.difference = largest;
  const right = largest <= data.tolerance;
  check.classList.toggle("bad", !right);
  check.textContent =
    `Largest difference from the engine's logits, with the same 8-bit weights, on ${samples.length} test images: ` +
    `${largest.toExponential(1)}; allowed: ${data.tolerance.toExponential(0)}.` +
    (right ? "" : " Do not trust this page's answers.");
}

// The temperature goes once from 1 to the run's, unless someone takes the slider or wants no motion.
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
function sweep() {
  let begin = null;
  let going = true;
  const stop = () => (going = false);
  for (const taken of ["pointerdown", "keydown", "wheel"]) addEventListener(taken, stop, { once: true });
  function step(now) {
    if (!going) return;
    begin ??= now + PAUSE;
    const part = Math.min(Math.max((now - begin) / SWEEP, 0), 1);
    slide(goal ** part);
    show();
    if (part < 1) requestAnimationFrame(step);
    else document.body.dataset.swept = "";
  }
  requestAnimationFrame(step);
}

const goal = Math.min(Math.max(data.temperature, 2), HOTTEST);
async function begin() {
  for (const model of models) model.layers = await Promise.all(model.layers.map(unpacked));
  slide(goal);
  if (!(await follow())) {
    load(withPixels(data.opening));
    opened = true;
    if (!calm) sweep();
  }
  compare();
  document.body.dataset.ready = "";
}
begin();
