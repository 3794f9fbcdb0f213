// The filters, and the media that pass them.

const PAGE_ROWS = 50;
const filters = { emotions: new Set(), confidence: 0, search: "", people: "", state: "", sort: "name", rows: PAGE_ROWS };

// Faces of at least the minimum confidence, by label of all media.
function facesByLabel(medium) {
  const totals = index.labels.map(() => 0);
  medium.counts.forEach((tenths, own) => {
    const label = medium.labels.length ? medium.labels[own] : own;
    tenths.forEach((faces, tenth) => {
      if (tenth >= Math.round(filters.confidence * 10)) totals[label] += faces;
    });
  });
  return totals;
}

function total(numbers) {
  return numbers.reduce((sum, number) => sum + number, 0);
}

function selectedFaces(totals) {
  return total(totals.filter((_, label) => filters.emotions.has(label)));
}

function filteredMedia() {
  const people = { none: (n) => n === 0, one: (n) => n === 1, several: (n) => n > 1 }[filters.people];
  const state = {
    failed: (medium) => medium.status === "failed",
    last: (medium) => index.run?.run_ids.includes(medium.run),
    image: (medium) => medium.kind === "image",
    video: (medium) => medium.kind === "video",
  }[filters.state];
  const found = [];
  for (const medium of index.media) {
    if (filters.search && !medium.searchText.includes(filters.search)) continue;
    if (people && !people(medium.tracks)) continue;
    if (state && !state(medium)) continue;
    const faces = facesByLabel(medium);
    const share = selectedFaces(faces) / Math.max(total(faces), 1);
    if (filters.emotions.size && !share) continue;
    found.push({ medium, faces, share });
  }
  const orders = {
    name: null,
    faces: (a, b) => b.medium.faces - a.medium.faces,
    length: (a, b) => b.medium.seconds - a.medium.seconds,
    share: (a, b) => b.share - a.share,
  };
  return orders[filters.sort] ? found.sort(orders[filters.sort]) : found;
}

// A button for each emotion, with its share of faces; pressed ones filter.
function emotionButtons(changed) {
  const numbers = index.labels.map(() => make("span", { class: "number" }));
  const buttons = index.labels.map((name, label) =>
    make(
      "button",
      {
        type: "button",
        class: "chip",
        onclick: () => {
          if (!filters.emotions.delete(label)) filters.emotions.add(label);
          changed();
        },
      },
      make("span", { class: "name" }, swatch(label), name),
      numbers[label],
    ),
  );
  const update = (totals) => {
    const all = total(totals);
    buttons.forEach((button, label) => button.setAttribute("aria-pressed", String(filters.emotions.has(label))));
    numbers.forEach((number, label) => { number.textContent = all ? formatPercent(totals[label] / all) : "–"; });
  };
  return { element: make("div", { class: "chips", role: "group", "aria-label": "Filter by emotion" }, buttons), update };
}

function confidenceSlider(changed) {
  const output = make("span", {}, formatPercent(filters.confidence));
  const slider = make("input", {
    type: "range",
    min: 0,
    max: 90,
    step: 10,
    value: Math.round(100 * filters.confidence),
    oninput: (event) => {
      filters.confidence = Number(event.target.value) / 100;
      output.textContent = formatPercent(filters.confidence);
      changed();
    },
  });
  return make("label", { class: "field confidence" }, "Confidence at least ", output, slider);
}

function selectField(name, options, value, changed) {
  const select = make("select", { onchange: (event) => changed(event.target.value) });
  for (const [key, text] of options) select.append(make("option", { value: key, selected: key === value }, text));
  return make("label", { class: "field" }, name, select);
}

function distributionBar(totals) {
  const all = total(totals);
  const parts = totals.map((faces, label) =>
    faces ? make("span", { style: { "flex-grow": faces / all, "background-color": index.colours[label] } }) : null,
  );
  const words = index.labels.map((name, label) => `${name} ${formatPercent(totals[label] / Math.max(all, 1))}`).join(", ");
  return make("div", { class: "distribution", role: "img", "aria-label": all ? `Emotion distribution: ${words}` : "No faces" }, parts);
}
