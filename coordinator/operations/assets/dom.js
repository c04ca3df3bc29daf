// Elements. What comes from a server is inserted as text only: there is no innerHTML anywhere.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

export function put(element, ...children) {
  return filled(element, {}, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((each) => each !== null && each !== undefined && each !== false)
    .map((each) => (each instanceof Node ? each : shown(each))));
  return element;
}

// Characters that turn the direction of a text, or are not seen, are shown as their codes: a type or an id that holds
// some cannot look like another. They are those of coordinator/service/text.py, but for the ends of lines.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\u{1fffe}\u{1ffff}\u{2fffe}\u{2ffff}\u{3fffe}-\u{10ffff}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;
export function shown(value) {
  return String(value).replace(UNSEEN, (each) => each.split("").map((unit) => "\\u" + unit.charCodeAt(0).toString(16).padStart(4, "0")).join(""));
}

export function setText(element, value) {
  const text = value === null || value === undefined ? "–" : shown(value);
  if (element.textContent !== text) element.textContent = text;
}

export function badge(text, kind = text) {
  return h("span", { class: `badge ${/^[a-z_]+$/.test(kind) ? kind.replace("_", "") : ""}` }, text);
}

let saying = 0;
export function say(text) {
  const line = h("p", {}, text);
  document.getElementById("said").replaceChildren(line);
  const number = ++saying;
  setTimeout(() => { if (number === saying) line.remove(); }, 8000);
}

export function problem(error) {
  return h("p", { class: "problem", role: "alert" }, error.message || String(error));
}

export function count(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en-US");
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 120) return `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} d`;
}

export function ms(value) {
  return value === null || value === undefined ? "–" : value < 1000 ? `${Math.round(value * 10) / 10} ms` : seconds(value / 1000);
}

export function time(text) {
  if (!text) return "–";
  const at = new Date(text);
  return h("time", { datetime: text, title: at.toString() }, text.replace("T", " ").replace(/(\.\d{3})\d*/, "$1"));
}

// Who asked, in one text that is nobody else's: as `coordinator.operate.actors.named`.
export function named({ subject, tenant }) {
  const name = /[("…]/.test(subject) ? JSON.stringify(subject) : subject;
  return tenant ? `${name} (${tenant})` : name;
}

export function ago(text) {
  return text ? `${seconds(Math.max(0, (Date.now() - Date.parse(text)) / 1000))} ago` : "–";
}

export function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}
