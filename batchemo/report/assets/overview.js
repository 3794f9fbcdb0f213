// All media: totals, emotion distribution, last run, drift, failures, and a filtered list.

const STRIP_CELLS = 48;
const CONFIDENCE_STEPS = 10;
const ORDERS = [["name", "name"], ["share", "share of selected emotions"], ["faces", "number of faces"], ["length", "length"]];

function buildOverview(root, open) {
  const mix = make("div", { class: "bar" });
  const buttons = emotionButtons(changed);
  const status = make("p", { class: "soft", role: "status" });
  const body = make("tbody");
  const more = make("button", { type: "button", class: "quiet", onclick: () => { filters.rows += PAGE_ROWS; changed(); } });
  const select = {
    people: selectField("People", [["", "any number"], ["one", "one"], ["several", "several"], ["none", "none"]], "", (value) => set("people", value)),
    state: selectField("Show", mediaOptions(), "", (value) => set("state", value)),
    sort: selectField("Sort by", ORDERS, "name", (value) => set("sort", value)),
  };
  const search = make("input", {
    type: "search",
    placeholder: "part of the name",
    oninput: (event) => set("search", event.target.value.trim().toLowerCase()),
  });
  root.append(
    make("h1", { tabindex: -1 }, nameNode(index.title)),
    totalsList(),
    make(
      "div",
      { class: "pair" },
      make("div", { class: "card" }, make("h2", {}, "Emotion distribution"), mix, buttons.element),
      lastRunCard((state) => { select.state.querySelector("select").value = state; set("state", state); }),
    ),
    ...driftCards(),
    ...failureCards(),
    make(
      "div",
      { class: "filters" },
      make("label", { class: "field grow" }, "Medium", search),
      confidenceSlider(changed),
      select.people,
      select.state,
      select.sort,
    ),
    status,
    make(
      "table",
      { class: "media" },
      make("caption", { class: "visually-hidden" }, "Media; select a name to open its timeline"),
      make("thead", {}, make("tr", {}, make("td"), ["Medium", "Timeline", "People", "Faces", "Dominant emotion"].map((name) => make("th", { scope: "col" }, name)))),
      body,
    ),
    more,
  );
  changed();
  return changed;

  function set(name, value) {
    filters[name] = value;
    filters.rows = PAGE_ROWS;
    changed();
  }

  function changed() {
    const shown = filteredMedia();
    const totals = index.labels.map((_, label) => total(shown.map((each) => each.faces[label])));
    mix.replaceChildren(distributionBar(totals));
    buttons.update(totals);
    status.textContent = shown.length === index.media.length
      ? formatPlural(shown.length, "medium", "media")
      : `${formatCount(shown.length)} of ${formatPlural(index.media.length, "medium", "media")}`;
    body.replaceChildren(...shown.slice(0, filters.rows).map((each) => mediumRow(each, open)));
    more.hidden = shown.length <= filters.rows;
    more.textContent = `Show ${Math.min(PAGE_ROWS, shown.length - filters.rows)} more`;
  }
}

function mediaOptions() {
  const found = [["", "all media"], ["video", "videos"], ["image", "pictures"]];
  if (index.media.some((medium) => medium.status === "failed")) found.push(["failed", "failed media"]);
  if (index.run) found.push(["last", "media of the last run"]);
  return found;
}

function totalsList() {
  const sum = (name) => total(index.media.map((medium) => medium[name]));
  const failed = index.media.filter((medium) => medium.status === "failed").length;
  const seconds = total(index.media.filter((medium) => medium.kind === "video").map((medium) => medium.seconds));
  const each = [
    ["Media", formatCount(index.media.length), seconds ? `${formatTime(seconds, 0)} of video` : ""],
    ["People", formatCount(sum("tracks")), "counted per medium"],
    ["Faces", formatCount(sum("faces")), `in ${formatPlural(sum("frames"), "frame", "frames")}`],
    ["Failed", formatCount(failed), failed ? "listed below" : "all media could be read"],
  ];
  return make(
    "dl",
    { class: "figures" },
    each.map(([name, number, note]) =>
      make("div", { class: name === "Failed" && failed ? "bad" : null }, make("dt", {}, name), make("dd", {}, number, make("small", {}, note))),
    ),
  );
}

function lastRunCard(choose) {
  const run = index.run;
  if (!run) return null;
  const analysed = index.media.filter((medium) => run.run_ids.includes(medium.run)).length;
  const list = (title, names) =>
    names.length
      ? make("p", {}, `${title}: `, names.slice(0, 10).flatMap((name, i) => [i ? ", " : "", nameNode(name)]), names.length > 10 ? ` and ${formatCount(names.length - 10)} more` : "")
      : null;
  const soft = (...children) => make("p", { class: "soft" }, ...children);
  return make(
    "div",
    { class: "card" },
    make("h2", {}, "Last run"),
    make("p", {}, formatDate(run.started), run.job ? [", ", nameNode(run.job)] : null, shardsText(run), `: ${formatPlural(run.analysed, "medium", "media")} analysed, ${run.redrawn ? `${formatCount(run.redrawn)} rendered again, ` : ""}${formatCount(run.kept)} unchanged.`),
    run.how === "done" ? null : make("p", { class: "problem" }, run.how ? `It stopped early: ${run.message || run.how}` : "It was interrupted. The same command continues it."),
    soft(run.before ? `Previous run: ${formatDate(run.before)}.` : "There is no previous run of the same media."),
    list("Newly failed", run.failing),
    list("Failed before, now done", run.recovered),
    list("Deleted or moved", run.vanished),
    list("Results removed, as the media are gone", run.pruned),
    run.drift.length ? null : run.drift_note ? soft(`Drift: ${run.drift_note}.`) : null,
    analysed && analysed < index.media.length
      ? make("button", { type: "button", class: "quiet", onclick: () => choose("last") }, "Show only these media")
      : null,
  );
}

function shardsText(run) {
  if (!run.of_shards) return "";
  return run.shards === run.of_shards ? `, in ${formatCount(run.shards)} shards` : `, ${formatCount(run.shards)} of ${formatCount(run.of_shards)} shards`;
}

// Figures that differ from those of earlier runs.
function driftCards() {
  const lines = index.run?.drift ?? [];
  if (!lines.length) return [];
  return [make("div", { class: "card drift" }, make("h2", {}, "Drift from earlier runs"), make("ul", { class: "plain" }, lines.map((line) => make("li", {}, nameNode(line)))))];
}

function failureCards() {
  const failed = index.media.filter((medium) => medium.status === "failed");
  if (!failed.length) return [];
  const item = (medium) => make("li", {}, make("a", { href: addressOf(medium) }, nameNode(medium.name)), make("p", {}, nameNode(medium.message)));
  const rest = failed.slice(5);
  const card = make("div", { class: "card bad" }, make("h2", {}, "Failed media"), make("ul", { class: "plain" }, failed.slice(0, 5).map(item)));
  if (rest.length) {
    const list = make("ul", { class: "plain" }, rest.slice(0, 500).map(item));
    card.append(make("details", {}, make("summary", {}, `${formatCount(rest.length)} more`), list));
  }
  return [card];
}

function mediumRow({ medium, faces }) {
  const all = total(faces);
  const first = argmax(faces.map((each, label) => (filters.emotions.size && !filters.emotions.has(label) ? -1 : each)));
  const thumbnail = make("td", { class: "face" });
  const show = (src) => thumbnail.append(make("img", { src, alt: "", width: 40, height: 40, loading: "lazy", onerror: (event) => event.target.remove() }));
  if (medium.face) show(medium.face);
  else if (isInline(medium) && medium.tracks) {
    timelineOf(medium).then((timeline) => {
      const seen = timeline.tracks.find((track) => track.thumbnail);
      if (seen) show(seen.thumbnail);
    }, () => {});
  }
  const kind = medium.kind === "image" ? "picture" : medium.seconds ? formatTime(medium.seconds, 0) : "video";
  let dominant = make("span", { class: "soft" }, medium.faces ? `all below ${formatPercent(filters.confidence)}` : "no faces");
  if (medium.status === "failed") dominant = make("span", { class: "failed" }, "failed");
  else if (all) dominant = [emotionLabel(first), " ", make("span", { class: "number" }, formatPercent(faces[first] / all))];
  return make(
    "tr",
    {},
    thumbnail,
    make("th", { scope: "row" }, make("a", { href: addressOf(medium) }, nameNode(medium.name)), make("small", {}, kind)),
    make("td", { class: "strip" }, medium.strip.length ? timelineStrip(medium) : null),
    make("td", { class: "amount", "data-name": "people" }, formatCount(medium.tracks)),
    make("td", { class: "amount", "data-name": "faces" }, formatCount(medium.faces)),
    make("td", { class: "dominant" }, dominant),
  );
}

// The dominant emotion over time, pale below the minimum confidence.
function timelineStrip(medium) {
  const runs = [];
  medium.strip.forEach((value, cell) => {
    const own = Math.floor(value / CONFIDENCE_STEPS);
    const label = own < 0 || !medium.labels.length ? own : medium.labels[own];
    const on = !filters.emotions.size || filters.emotions.has(label);
    const sure = value % CONFIDENCE_STEPS >= Math.round(filters.confidence * CONFIDENCE_STEPS);
    const opacity = on ? (sure ? 1 : PALE_OPACITY) : FADED_OPACITY;
    const last = runs.at(-1);
    if (last?.label === label && last.opacity === opacity) last.cells++;
    else runs.push({ label, opacity, cell, cells: 1 });
  });
  const seen = runs.filter((run) => run.label >= 0);
  const names = seen.map((run) => index.labels[run.label]).filter((name, i, all) => name !== all[i - 1]);
  const words = names.slice(0, 8).join(", then ") + (names.length > 8 ? ", and so on" : "");
  return makeSvg(
    "svg",
    { viewBox: `0 0 ${STRIP_CELLS} 1`, preserveAspectRatio: "none", role: "img", "aria-label": words },
    seen.map((run) =>
      makeSvg("rect", { x: run.cell, width: run.cells, height: 1, fill: index.colours[run.label], "fill-opacity": run.opacity }),
    ),
  );
}
