// The timeline of one track on a canvas: smoothed probabilities as lines, episodes as bands below, time along the bottom.

const PLOT = { left: 38, right: 12, top: 8, height: 112, band: 20, gap: 8, axis: 20 };
const CHART_HEIGHT = PLOT.top + PLOT.height + PLOT.gap + PLOT.band + PLOT.axis;
const TICK_STEPS_S = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400];
const MIN_TICK_PX = 72;
const FADED_OPACITY = 0.18; // of emotions that are filtered out
const PALE_OPACITY = 0.45; // below the minimum confidence

// `view` is shared by all charts of a medium: visible time range (from, to), cursor, length (seconds), raw.
function trackChart(track, view, actions) {
  const canvas = make("canvas", { "aria-hidden": "true" });
  const cursor = make("div", { class: "cursor" });
  const slider = make("div", { class: "chart", role: "slider", tabindex: 0, "aria-label": `Timeline of person ${track.id}` }, canvas, cursor);
  const chart = { element: slider, draw, placeCursor, track };

  let width = 1; // of the plot, cached: reading it from the element for each point takes a second for a long video
  const xOf = (time) => PLOT.left + ((time - view.from) / (view.to - view.from)) * width;
  const timeOf = (event) => {
    const share = (event.clientX - canvas.getBoundingClientRect().left - PLOT.left) / width;
    return view.from + Math.min(Math.max(share, 0), 1) * (view.to - view.from);
  };

  slider.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    slider.setPointerCapture(event.pointerId);
    actions.seek(timeOf(event));
  });
  slider.addEventListener("pointermove", (event) => {
    if (slider.hasPointerCapture(event.pointerId)) actions.seek(timeOf(event));
    else actions.hover(chart, timeOf(event));
  });
  slider.addEventListener("pointerleave", () => actions.hover(chart, null));
  slider.addEventListener("wheel", (event) => {
    if (Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
    event.preventDefault();
    actions.pan(event.deltaX / width);
  }, { passive: false });
  slider.addEventListener("keydown", (event) => onKey(event, track, view, actions));
  new ResizeObserver(() => { draw(); placeCursor(view.cursor); }).observe(slider);
  return chart;

  function draw() {
    const pixels = globalThis.devicePixelRatio || 1;
    const full = canvas.clientWidth;
    if (!full) return;
    width = Math.max(full - PLOT.left - PLOT.right, 1);
    canvas.width = Math.round(full * pixels);
    canvas.height = Math.round(CHART_HEIGHT * pixels);
    const pen = canvas.getContext("2d");
    pen.scale(pixels, pixels);
    const theme = themeColours(canvas);
    drawGrid(pen, view, xOf, full, theme);
    pen.save();
    pen.beginPath();
    pen.rect(PLOT.left, 0, width, CHART_HEIGHT);
    pen.clip();
    if (view.raw) drawRaw(pen, track, view, xOf, width);
    drawLines(pen, samplesOf(track, view, width), xOf);
    drawBands(pen, track, xOf, theme);
    pen.restore();
  }

  function placeCursor(time) {
    const inside = time >= view.from && time <= view.to;
    cursor.hidden = !inside;
    if (inside) cursor.style.transform = `translateX(${xOf(time)}px)`;
    slider.setAttribute("aria-valuemin", "0");
    slider.setAttribute("aria-valuemax", view.length.toFixed(1));
    slider.setAttribute("aria-valuenow", time.toFixed(1));
    slider.setAttribute("aria-valuetext", `${formatTime(time)}: ${valueText(track, time)}`);
  }
}

function onKey(event, track, view, actions) {
  const page = (view.to - view.from) / 10;
  const at = lowerBound(track.times, view.cursor - 1e-4);
  const step = (by) => track.times[Math.min(Math.max(at + by, 0), track.times.length - 1)];
  const moves = {
    ArrowLeft: () => actions.seek(step(-1)),
    ArrowRight: () => actions.seek(step(Math.abs(track.times[at] - view.cursor) < 1e-3 ? 1 : 0)),
    PageDown: () => actions.seek(view.cursor - page),
    PageUp: () => actions.seek(view.cursor + page),
    Home: () => actions.seek(track.times[0]),
    End: () => actions.seek(track.times[track.times.length - 1]),
    " ": actions.play,
    Enter: actions.play,
    "+": () => actions.zoom(0.5),
    "-": () => actions.zoom(2),
  };
  if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  moves[event.key]();
}

// The two most probable emotions at a time, as text.
function valueText(track, time) {
  const values = meansAt(track, time, index.smooth);
  if (!values) return "not in view";
  const order = values.map((_, label) => label).sort((a, b) => values[b] - values[a]);
  return order.slice(0, 2).map((label) => `${index.labels[label]} ${formatPercent(values[label])}`).join(", ");
}

function themeColours(element) {
  const style = getComputedStyle(element);
  return { line: style.getPropertyValue("--line"), soft: style.getPropertyValue("--soft"), font: style.fontFamily };
}

function drawGrid(pen, view, xOf, full, theme) {
  pen.font = `11px ${theme.font}`;
  pen.fillStyle = theme.soft;
  pen.strokeStyle = theme.line;
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const share of [0, 0.5, 1]) {
    const y = Math.round(yOf(share)) + 0.5;
    pen.beginPath();
    pen.moveTo(PLOT.left, y);
    pen.lineTo(full - PLOT.right, y);
    pen.stroke();
    pen.fillText(`${100 * share}\u202f%`, PLOT.left - 6, y);
  }
  const span = view.to - view.from;
  const step = TICK_STEPS_S.find((each) => (each / span) * (full - PLOT.left - PLOT.right) >= MIN_TICK_PX) ?? TICK_STEPS_S.at(-1);
  const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
  pen.textBaseline = "alphabetic";
  for (let i = Math.ceil(view.from / step - 1e-9); i * step <= view.to + 1e-9; i++) {
    const x = xOf(i * step);
    pen.textAlign = x < PLOT.left + 12 ? "left" : x > full - PLOT.right - 18 ? "right" : "center";
    pen.fillText(formatTime(i * step, digits), x, CHART_HEIGHT - 4);
  }
}

function yOf(share) {
  return PLOT.top + (1 - share) * PLOT.height;
}

// Smoothed values at the time of each face, or at each pixel where there are more faces than pixels; null in a gap.
function samplesOf(track, view, width) {
  const first = Math.max(lowerBound(track.times, view.from) - 1, 0);
  const last = Math.min(lowerBound(track.times, view.to) + 1, track.times.length);
  const samples = [];
  if (last - first <= width) {
    for (let i = first; i < last; i++) {
      if (i > first && track.times[i] - track.times[i - 1] > track.gap) samples.push(null);
      samples.push({ time: track.times[i], values: meansAt(track, track.times[i], index.smooth) });
    }
    return samples;
  }
  const step = (view.to - view.from) / width;
  for (let time = Math.max(view.from, track.times[first]); time <= Math.min(view.to, track.times[last - 1]); time += step) {
    const values = meansAt(track, time, Math.max(index.smooth, step));
    samples.push(values && { time, values });
  }
  return samples;
}

function drawLines(pen, samples, xOf) {
  const peaks = index.labels.map((_, label) => Math.max(0, ...samples.map((sample) => (sample ? sample.values[label] : 0))));
  const order = peaks.map((_, label) => label).filter((label) => peaks[label] >= 0.02).sort((a, b) => peaks[a] - peaks[b]);
  pen.lineJoin = pen.lineCap = "round";
  for (const label of order) {
    const off = filters.emotions.size && !filters.emotions.has(label);
    pen.strokeStyle = pen.fillStyle = index.colours[label];
    pen.lineWidth = peaks[label] < 0.2 || off ? 1 : 2;
    pen.globalAlpha = off ? FADED_OPACITY : PALE_OPACITY;
    stroke(pen, samples, label, xOf, () => true);
    if (off) continue;
    pen.globalAlpha = 1;
    stroke(pen, samples, label, xOf, (values) => Math.max(...values) >= filters.confidence);
  }
  pen.globalAlpha = 1;
}

function stroke(pen, samples, label, xOf, wanted) {
  let length = 0;
  let x = 0;
  let y = 0;
  const end = () => {
    if (length === 1) dot(pen, x, y);
    else if (length) pen.stroke();
    length = 0;
  };
  for (const sample of samples) {
    if (!sample || !wanted(sample.values)) {
      end();
      continue;
    }
    x = xOf(sample.time);
    y = yOf(sample.values[label]);
    if (length) pen.lineTo(x, y);
    else {
      pen.beginPath();
      pen.moveTo(x, y);
    }
    length++;
  }
  end();
}

function dot(pen, x, y) {
  pen.beginPath();
  pen.arc(x, y, 1.5, 0, 7);
  pen.fill();
}

// All values: as dots, or as the range of each pixel where there are more values than pixels.
function drawRaw(pen, track, view, xOf, width) {
  const first = lowerBound(track.times, view.from);
  const last = lowerBound(track.times, view.to + 1e-6);
  const crowded = last - first > width;
  track.values.forEach((percents, label) => {
    if (!percents || (filters.emotions.size && !filters.emotions.has(label))) return;
    pen.fillStyle = index.colours[label];
    pen.globalAlpha = crowded ? 0.3 : 0.45;
    for (let i = first; i < last; ) {
      const x = Math.round(xOf(track.times[i]));
      let low = percents[i];
      let high = percents[i];
      for (i++; crowded && i < last && Math.round(xOf(track.times[i])) === x; i++) {
        low = Math.min(low, percents[i]);
        high = Math.max(high, percents[i]);
      }
      if (high < 2) continue;
      if (crowded) pen.fillRect(x, yOf(high / 100), 1, Math.max(1, ((high - low) / 100) * PLOT.height));
      else dot(pen, xOf(track.times[i - 1]), yOf(high / 100));
    }
  });
  pen.globalAlpha = 1;
}

function drawBands(pen, track, xOf, theme) {
  const top = PLOT.top + PLOT.height + PLOT.gap;
  pen.font = `11px ${theme.font}`;
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  for (const { label, start, end, peak } of track.episodes) {
    const x = xOf(start);
    const width = Math.max(xOf(end) - x, 2);
    const off = (filters.emotions.size && !filters.emotions.has(label)) || peak < filters.confidence;
    pen.globalAlpha = off ? FADED_OPACITY : 1;
    pen.fillStyle = index.colours[label];
    pen.fillRect(x, top, Math.max(width - 1, 1.5), PLOT.band);
    const left = Math.max(x, PLOT.left) + 6;
    if (left + pen.measureText(index.labels[label]).width + 6 < x + width) {
      pen.globalAlpha = 1;
      pen.fillStyle = off ? theme.soft : textColourOn(index.colours[label]);
      pen.fillText(index.labels[label], left, top + PLOT.band / 2 + 0.5);
    }
  }
  pen.globalAlpha = 1;
}

// Black or white, whichever has more contrast (WCAG 2.2).
function textColourOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}
