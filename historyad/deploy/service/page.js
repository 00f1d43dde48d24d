// Sends images to POST /score and shows the verdicts. Scores and p-values come from the service;
// the verdict at another false-positive rate follows from the p-value here.
"use strict";

const element = (id) => document.getElementById(id);
const RATES = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001];
const MOST_FILES = 16; // in one request: results appear in small portions
const MOST_ATTEMPTS = 20; // while the service is busy
const SMALL = 96; // pixels; smaller pictures are shown as squares, not blurred

let model = null;
let token = "";
let rates = [];
let items = []; // {file, card, url, result, asked}
let working = false;

// --- talking to the service

async function ask(path, options = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(path, { ...options, headers });
    if (answer.status === 401) {
      await askForToken();
    } else if (answer.status === 503 && attempt < MOST_ATTEMPTS) {
      await new Promise((done) => setTimeout(done, 1000 * (answer.headers.get("Retry-After") || 1)));
    } else {
      return answer;
    }
  }
}

function askForToken() {
  const form = element("token-form");
  form.hidden = false;
  element("token").focus();
  return new Promise((done) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      token = element("token").value;
      element("token").value = "";
      form.hidden = true;
      done();
    };
  });
}

async function score(files, query = "") {
  const form = new FormData();
  files.forEach((file) => form.append("files", file, file.name));
  try {
    const answer = await ask(`score${query}`, { method: "POST", body: form });
    const content = await answer.json();
    return content.results || files.map(() => ({ error: String(content.detail) }));
  } catch {
    return files.map(() => ({ error: "The service does not answer." }));
  }
}

// --- the work that is left: scores first, then maps, the most anomalous first

async function work() {
  if (working) {
    return;
  }
  working = true;
  for (;;) {
    const portion = nextPortion();
    if (portion.length) {
      const results = await score(portion.map((item) => item.file));
      portion.forEach((item, i) => (item.result = results[i]));
      sort();
    } else {
      const item = items.find((other) => !other.asked && !other.result.error);
      if (!item) {
        break;
      }
      item.asked = true;
      [item.shown] = await score([item.file], "?map=1");
      show(item);
    }
  }
  working = false;
}

function nextPortion() {
  const { max_files: maxFiles, max_body_bytes: maxBytes, max_work_pixels: maxPixels } = model.limits;
  // Where each pixel is work, one image may be all that is taken at a time.
  const most = maxPixels ? 1 : Math.min(MOST_FILES, maxFiles);
  const portion = [];
  let bytes = 0;
  for (const item of items.filter((other) => !other.result)) {
    bytes += item.file.size + 1000; // and the form around it
    if (portion.length && (portion.length === most || bytes > maxBytes)) {
      break;
    }
    portion.push(item);
  }
  return portion;
}

function add(files) {
  for (const file of files) {
    const card = element("card").content.firstElementChild.cloneNode(true);
    const item = { file, card, url: URL.createObjectURL(file), result: null, asked: false };
    const image = card.querySelector(".image");
    image.onload = () => image.classList.toggle("small", image.naturalWidth < SMALL);
    image.onerror = () => (image.parentElement.hidden = true); // a format that browsers lack
    image.src = item.url;
    card.querySelector(".name").textContent = file.name;
    if (file.size > model.limits.max_body_bytes) {
      item.result = { error: "Larger than this service takes." };
    }
    items.push(item);
    element("results").append(card);
    show(item);
  }
  summarise();
  work();
}

function clear() {
  items.forEach((item) => URL.revokeObjectURL(item.url));
  items = [];
  element("results").replaceChildren();
  summarise();
  element("files").focus();
}

// --- showing

const rate = () => rates[element("rate").value];
const isAnomalous = (item) => item.result.p_value <= rate();
const isScored = (item) => item.result && !item.result.error;

function sort() {
  const order = (item) => (isScored(item) ? -item.result.anomaly_score : item.result ? 1e9 : 2e9);
  items.sort((a, b) => order(a) - order(b));
  element("results").append(...items.map((item) => item.card));
  items.forEach(show);
  summarise();
}

function show(item) {
  const { card, result } = item;
  const write = (name, text) => (card.querySelector(`.${name}`).textContent = text);
  card.className = "";
  if (!result) {
    write("verdict", "waiting");
  } else if (result.error) {
    write("verdict", "not scored");
    write("meaning", result.error);
  } else {
    card.className = isAnomalous(item) ? "anomalous" : "normal";
    write("verdict", card.className);
    write("meaning", meaning(result.p_value));
    write("figures", `score ${signed(result.anomaly_score)} · p-value ${short(result.p_value)}`);
  }
  if (item.shown && item.shown.map) {
    const map = card.querySelector(".map");
    map.onload = () => map.classList.toggle("small", map.naturalWidth < SMALL);
    map.src = item.shown.map;
    map.alt = `Where ${item.file.name} looks anomalous`;
    map.parentElement.hidden = false;
    const against = item.shown.against.map(({ view, value }) => `${view} (${value.toFixed(1)})`);
    write("against", against.length ? `Against it: ${against.join(", ")}.` : "");
    showNear(card.querySelector(".near"), item.shown.near);
  }
}

function showNear(place, near) {
  const pictures = near.map(({ name, picture }) => {
    const image = new Image();
    image.onload = () => image.classList.toggle("small", image.naturalWidth < SMALL);
    image.src = picture;
    image.alt = image.title = name;
    return image;
  });
  place.firstElementChild.replaceChildren(...pictures);
  place.hidden = !pictures.length;
}

function meaning(pValue) {
  const smallest = 1 / (model.held_out + 1);
  if (pValue <= smallest) {
    return `More unusual than all ${model.held_out.toLocaleString("en")} held-out normal images.`;
  }
  return `${percent(pValue)} of normal images look at least as unusual.`;
}

function summarise() {
  const scored = items.filter(isScored);
  const failed = items.filter((item) => item.result && item.result.error).length;
  const left = items.filter((item) => !item.result).length;
  const parts = [`${scored.filter(isAnomalous).length} of ${scored.length} anomalous`];
  if (failed) {
    parts.push(`${failed} not scored`);
  }
  if (left) {
    parts.push(`${left} waiting`);
  }
  element("status").textContent = items.length ? `${parts.join(", ")}.` : "No images yet.";
  element("save").disabled = !scored.length;
  element("clear").disabled = !items.length;
}

function showRate() {
  const text = `${percent(rate())} (1 in ${Math.round(1 / rate()).toLocaleString("en")})`;
  element("rate-text").textContent = text;
  element("rate").setAttribute("aria-valuetext", text);
  items.forEach(show);
  summarise();
}

const short = (value) => String(Number(value.toPrecision(2)));
const percent = (share) => `${short(100 * share)} %`;
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);

// A name as a cell of a table: text on one line, and no formula of a spreadsheet's.
function quoted(name) {
  const shown = name.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, escaped);
  return `"${(/^[=+\-@＝＋－＠]/.test(shown) ? `'${shown}` : shown).replaceAll('"', '""')}"`;
}

function escaped(character) {
  const code = character.codePointAt(0).toString(16);
  return code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
}

function save() {
  const rows = items.filter(isScored).map((item) => {
    const { anomaly_score: score, p_value: pValue } = item.result;
    return [quoted(item.file.name), score.toFixed(6), pValue.toFixed(6), Number(isAnomalous(item))];
  });
  rows.unshift(["path", "anomaly_score", "p_value", "is_anomalous"]);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([rows.map((row) => `${row.join(",")}\n`).join("")]));
  link.download = "scores.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// --- the start

async function start() {
  try {
    const answer = await ask("model");
    model = await answer.json();
  } catch {
    element("model").textContent = "The service does not answer. Reload the page to try again.";
    return;
  }
  element("model").textContent = describe();
  if (model.kind === "vector") {
    const zeros = Array(Math.min(3, Number(model.input))).fill("0.0");
    element("curl").textContent =
      `curl ${location.origin}/score -H 'Content-Type: application/json' ` +
      `-d '{"vectors": [[${zeros.join(", ")}${Number(model.input) > 3 ? ", …" : ""}]]}'`;
    element("vectors").hidden = false;
    return;
  }
  const megabytes = Math.round(model.limits.max_body_bytes / 2 ** 20);
  element("limits").textContent = `PNG, JPEG, TIFF, WebP, BMP, GIF; up to ${megabytes} MB each`;
  startSlider();
  element("images").hidden = false;
}

function describe() {
  const [height, width, channels] = model.input.split(" x ");
  const n = model.source.n_train.toLocaleString("en");
  const kind =
    model.kind === "vector"
      ? `vectors of ${model.input} numbers`
      : `${channels === "1" ? "grey" : "colour"} images, ${width} × ${height}`;
  const others = `${model.held_out.toLocaleString("en")} more`;
  const calibrated = model.folds ? `the same, in ${model.folds} folds` : others;
  return (
    `A model of normal data: trained on ${n} ${kind} (${model.source.description}), ` +
    `calibrated on ${calibrated}.`
  );
}

function startSlider() {
  const smallest = 1 / (model.held_out + 1);
  const all = new Set([model.false_positive_rate, ...RATES.filter((other) => other >= smallest)]);
  rates = [...all].sort((a, b) => a - b);
  element("rate").min = 0;
  element("rate").max = rates.length - 1;
  element("rate").value = rates.indexOf(model.false_positive_rate);
  element("rate").oninput = showRate;
  showRate();
}

element("files").onchange = (event) => {
  add(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
};
element("clear").onclick = clear;
element("save").onclick = save;
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault(); // or the browser would open the file in place of the page
    document.body.classList.toggle("dragging", name === "dragenter" || name === "dragover");
    if (name === "drop" && rates.length) {
      add(event.dataTransfer.files);
    }
  });
}
start();
