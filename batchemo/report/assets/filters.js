// What is shown: emotions, least confidence, media and people that were chosen.

const PAGE_ROWS = 50;
const chosen = { emotions: new Set(), confidence: 0, search: "", people: "", state: "", sort: "name", rows: PAGE_ROWS };

// Faces by label (of all media's labels) that are at least as confident as chosen.
function facesByLabel(medium) {
  const totals = index.labels.map(() => 0);
  medium.counts.forEach((tenths, own) => {
    const label = medium.labels.length ? medium.labels[own] : own;
    tenths.forEach((faces, tenth) => {
      if (tenth >= Math.round(chosen.confidence * 10)) totals[label] += faces;
    });
  });
  return totals;
}

function total(numbers) {
  return numbers.reduce((sum, number) => sum + number, 0);
}

function chosenFaces(totals) {
  return total(totals.filter((_, label) => chosen.emotions.has(label)));
}

function shownMedia() {
  const people = { none: (n) => n === 0, one: (n) => n === 1, several: (n) => n > 1 }[chosen.people];
  const state = {
    failed: (medium) => medium.status === "failed",
    last: (medium) => index.run?.run_ids.includes(medium.run),
    image: (medium) => medium.kind === "image",
    video: (medium) => medium.kind === "video",
  }[chosen.state];
  const found = [];
  for (const medium of index.media) {
    if (chosen.search && !medium.found.includes(chosen.search)) continue;
    if (people && !people(medium.tracks)) continue;
    if (state && !state(medium)) continue;
    const faces = facesByLabel(medium);
    const share = chosenFaces(faces) / Math.max(total(faces), 1);
    if (chosen.emotions.size && !share) continue;
    found.push({ medium, faces, share });
  }
  const orders = {
    name: null,
    faces: (a, b) => b.medium.faces - a.medium.faces,
    length: (a, b) => b.medium.seconds - a.medium.seconds,
    share: (a, b) => b.share - a.share,
  };
  return orders[chosen.sort] ? found.sort(orders[chosen.sort]) : found;
}

// One button for each emotion, with its share of the given faces; pressed ones are shown alone.
function emotionButtons(changed) {
  const numbers = index.labels.map(() => make("span", { class: "number" }));
  const buttons = index.labels.map((name, label) =>
    make(
      "button",
      {
        type: "button",
        class: "chip",
        onclick: () => {
          if (!chosen.emotions.delete(label)) chosen.emotions.add(label);
          changed();
        },
      },
      make("span", { class: "name" }, swatch(label), name),
      numbers[label],
    ),
  );
  const update = (totals) => {
    const all = total(totals);
    buttons.forEach((button, label) => button.setAttribute("aria-pressed", String(chosen.emotions.has(label))));
    numbers.forEach((number, label) => { number.textContent = all ? percent(totals[label] / all) : "–"; });
  };
  return { element: make("div", { class: "chips", role: "group", "aria-label": "Show only these emotions" }, buttons), update };
}

function confidenceSlider(changed) {
  const output = make("span", {}, percent(chosen.confidence));
  const slider = make("input", {
    type: "range",
    min: 0,
    max: 90,
    step: 10,
    value: Math.round(100 * chosen.confidence),
    oninput: (event) => {
      chosen.confidence = Number(event.target.value) / 100;
      output.textContent = percent(chosen.confidence);
      changed();
    },
  });
  return make("label", { class: "field confidence" }, "Confidence at least ", output, slider);
}

function selection(name, options, value, changed) {
  const select = make("select", { onchange: (event) => changed(event.target.value) });
  for (const [key, text] of options) select.append(make("option", { value: key, selected: key === value }, text));
  return make("label", { class: "field" }, name, select);
}

function mixBar(totals) {
  const all = total(totals);
  const parts = totals.map((faces, label) =>
    faces ? make("span", { style: { "flex-grow": faces / all, "background-color": index.colours[label] } }) : null,
  );
  const words = index.labels.map((name, label) => `${name} ${percent(totals[label] / Math.max(all, 1))}`).join(", ");
  return make("div", { class: "mix", role: "img", "aria-label": all ? `Mix of emotions: ${words}` : "No faces" }, parts);
}
