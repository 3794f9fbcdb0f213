// Creates elements. Text only ever becomes text nodes, so that file names stay text.

const SVG_NAMES = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG_NAMES, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, part] of Object.entries(value)) element.style.setProperty(key, part);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// A name: lines may break after its separators, and its writing direction is isolated.
function nameNode(text) {
  return make("bdi", {}, text.split(/(?<=[/_-])/).flatMap((part, i) => (i ? [make("wbr"), part] : [part])));
}

function swatch(label) {
  return make("span", { class: "swatch", style: { "--colour": index.colours[label] } });
}

function emotionLabel(label) {
  return make("span", { class: "emotion" }, swatch(label), index.labels[label]);
}

// Numbers as text.

function formatPercent(share) {
  return `${Math.round(100 * share)}\u202f%`;
}

function formatCount(number) {
  return number.toLocaleString("en");
}

function formatPlural(number, one, many) {
  return `${formatCount(number)} ${number === 1 ? one : many}`;
}

function formatTime(seconds, digits = 1) {
  const whole = Math.max(0, Number(seconds.toFixed(digits)));
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  const rest = (whole % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

function formatDate(iso) {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? iso : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}
