// Makes elements. Text only ever becomes text nodes, so that names of files stay text.

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

// A name, which may be broken after its separators, and whose direction of writing cannot reach beyond it.
function named(text) {
  return make("bdi", {}, text.split(/(?<=[/_-])/).flatMap((part, i) => (i ? [make("wbr"), part] : [part])));
}

function swatch(label) {
  return make("span", { class: "swatch", style: { "--colour": index.colours[label] } });
}

function emotion(label) {
  return make("span", { class: "emotion" }, swatch(label), index.labels[label]);
}

// Words for numbers.

function percent(share) {
  return `${Math.round(100 * share)}\u202f%`;
}

function count(number) {
  return number.toLocaleString("en");
}

function several(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

function clock(seconds, digits = 1) {
  const whole = Math.max(0, Number(seconds.toFixed(digits)));
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  const rest = (whole % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

function moment(iso) {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? iso : date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}
