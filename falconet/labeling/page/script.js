"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
const KEYS = "1234567890qwertyuiopasdfghjklzxcvbnm";
const SVG = "http://www.w3.org/2000/svg";
// What was decided: the class and the seconds that it took, by sample; and what was there before each decision.
const labels = new Map();
const history = [];
let current = 0;
let shownSince = Date.now();

const make = (tag, text) => {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
};

// Labels stay in the browser, so that a closed page loses nothing; under a name that belongs to these very samples.
const store = `falconet-labels-${page.digest}`;

const save = () => {
  try {
    localStorage.setItem(store, JSON.stringify({ labels: [...labels], classes: page.classes, history }));
  } catch { /* A browser that keeps nothing, or has no room. */ }
};

const restore = () => {
  try {
    const kept = JSON.parse(localStorage.getItem(store));
    for (const [index, decision] of kept.labels) labels.set(index, decision);
    for (const entry of kept.classes) addClass(entry.value, entry.shown);
    history.push(...kept.history);
  } catch { /* Nothing was kept. */ }
};

const addClass = (value, shown) => {
  if (!page.classes.some((entry) => entry.value === value)) page.classes.push({ value, shown });
};

const nameClass = (value) => {
  const entry = page.classes.find((one) => one.value === value);
  return entry ? entry.shown : value;
};

// Classes of one letter or digit each have that for a key; any others get keys in their order.
const keyOf = (entry) => {
  const own = page.classes.map((one) => one.value.toLowerCase());
  const plain = own.every((name) => name.length === 1 && KEYS.includes(name)) && new Set(own).size === own.length;
  return plain ? entry.value.toLowerCase() : KEYS[page.classes.indexOf(entry)];
};

const percent = (probability) => `${(100 * probability).toFixed(0)} %`;

const explain = (item) => {
  const suggestion = item.suggested === null ? "" : `${nameClass(item.suggested)} (${percent(item.probability)})`;
  if (item.label !== null) return `Labeled ${nameClass(item.label)}, but looks like ${suggestion}.`;
  return suggestion ? `No label yet; most probable: ${suggestion}.` : "No label yet.";
};

const draw = (view) => {
  if (view.picture !== null) {
    const image = make("img", "");
    image.src = view.picture;
    image.alt = "the sample";
    return image;
  }
  if (view.text !== null) {
    const text = make("blockquote", view.text);
    text.tabIndex = 0;
    return text;
  }
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 600 200");
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", view.note);
  for (const commands of view.paths) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", commands);
    drawing.append(path);
  }
  return drawing;
};

const matching = () => {
  const wanted = get("find").value.trim().toLowerCase();
  return page.classes.filter((entry) => entry.shown.toLowerCase().includes(wanted));
};

const showClasses = () => {
  const decision = labels.get(current);
  get("classes").replaceChildren(...matching().map((entry) => {
    const button = make("button", entry.shown + " ");
    button.type = "button";
    button.setAttribute("aria-pressed", String(decision !== undefined && decision.label === entry.value));
    const key = keyOf(entry);
    if (key) button.append(make("kbd", key));
    button.disabled = page.items.length === 0;
    button.addEventListener("click", () => decide(entry.value));
    return button;
  }));
};

const show = () => {
  const item = page.items[current];
  get("progress").value = labels.size;
  get("count").textContent = `${labels.size} of ${page.items.length} labeled`;
  get("undo").disabled = history.length === 0;
  get("previous").disabled = current === 0;
  get("next").disabled = current >= page.items.length - 1;
  get("name").textContent = item ? item.name : "No samples";
  get("why").textContent = item ? explain(item) : "";
  get("note").firstElementChild.textContent = item ? `${current + 1} of ${page.items.length}; ${item.view.note}` : "";
  get("view").replaceChildren(...(item ? [draw(item.view)] : []));
  showClasses();
  shownSince = Date.now();
};

const go = (index) => {
  current = Math.min(Math.max(index, 0), Math.max(page.items.length - 1, 0));
  show();
};

const decide = (label) => {
  if (!page.items[current]) return;
  history.push([current, labels.get(current) ?? null]);
  labels.set(current, { label, seconds: (Date.now() - shownSince) / 1000, at: new Date().toISOString() });
  get("find").value = "";
  save();
  // On to the next one that has none, as far as there is one.
  let following = current + 1;
  while (following < page.items.length && labels.has(following)) following += 1;
  go(following < page.items.length ? following : current + 1);
};

const undo = () => {
  if (history.length === 0) return;
  const [index, before] = history.pop();
  if (before === null) labels.delete(index);
  else labels.set(index, before);
  save();
  go(index);
};

const annotate = (item, decision) => JSON.stringify({
  result: [{
    from_name: page.control.name, to_name: page.control.target, type: "choices", value: { choices: [decision.label] },
  }],
  // What a person says of a label that there is already outweighs it.
  was_cancelled: false, ground_truth: item.annotated, lead_time: decision.seconds, created_at: decision.at,
});

// Tasks are put together as text: a number that passed through JavaScript may not be the same number any more.
const write = () => "[\n" + page.items.map((item, index) => {
  const decision = labels.get(index);
  const added = decision === undefined ? "" : (item.annotated ? ", " : "") + annotate(item, decision);
  return item.head + added + item.tail;
}).concat(page.rest).join(",\n") + "\n]\n";

const download = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([write()], { type: "application/json" }));
  link.download = "labels.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

// The class that is meant by a name, however it is written, or by its beginning; undefined where several may be.
const findTyped = (typed) => {
  const lower = typed.toLowerCase();
  const ways = [
    (shown) => shown === typed,
    (shown) => shown.toLowerCase() === lower,
    (shown) => shown.toLowerCase().startsWith(lower),
  ];
  for (const fits of ways) {
    const found = page.classes.filter((entry) => fits(entry.shown));
    if (found.length > 0) return found.length === 1 ? found[0] : undefined;
  }
  return undefined;
};

const takeTyped = () => {
  const typed = get("find").value.trim();
  if (!typed) return;
  // What is part of other names stays in the field: a click on one of them tells which, or on Add that it is a new one.
  if (matching().length === 0) addClass(typed, typed);
  const chosen = findTyped(typed);
  if (!chosen) return;
  get("find").blur();
  decide(chosen.value);
};

const onKey = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const item = page.items[current];
  const inButton = event.target instanceof HTMLButtonElement && (event.key === "Enter" || event.key === " ");
  if (event.target === get("find") || inButton || !item) return;
  const entry = page.classes.find((one) => keyOf(one) === event.key.toLowerCase());
  const actions = {
    ArrowLeft: () => go(current - 1),
    ArrowRight: () => go(current + 1),
    Backspace: undo,
    Enter: () => item.suggested !== null && decide(item.suggested),
    " ": () => item.label !== null && decide(item.label),
    "/": () => get("find").focus(),
  };
  const act = actions[event.key] || (entry && (() => decide(entry.value)));
  if (!act) return;
  event.preventDefault();
  act();
};

document.addEventListener("keydown", onKey);
// A button that was clicked must not take the next key for itself.
document.addEventListener("click", (event) => event.detail > 0 && event.target.closest("button")?.blur());
get("find").addEventListener("input", showClasses);
get("find").addEventListener("keydown", (event) => {
  if (event.key === "Enter") takeTyped();
  if (event.key === "Escape") { get("find").value = ""; get("find").blur(); showClasses(); }
});
get("add").addEventListener("click", () => {
  const typed = get("find").value.trim();
  if (typed) addClass(typed, typed);
  get("find").value = "";
  showClasses();
});
get("previous").addEventListener("click", () => go(current - 1));
get("next").addEventListener("click", () => go(current + 1));
get("undo").addEventListener("click", undo);
get("download").addEventListener("click", download);
restore();
const first = page.items.findIndex((_, index) => !labels.has(index));
go(first < 0 ? 0 : first);
