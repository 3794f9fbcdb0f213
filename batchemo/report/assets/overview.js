// All media: figures, the mix of emotions, the last run, what failed, and a list to choose from.

const STRIP_CELLS = 48;
const CONFIDENCE_STEPS = 10;
const ORDERS = [["name", "by name"], ["share", "most of the chosen emotions"], ["faces", "most faces"], ["length", "longest"]];

function buildOverview(root, open) {
  const mix = make("div", { class: "bar" });
  const buttons = emotionButtons(changed);
  const status = make("p", { class: "soft", role: "status" });
  const body = make("tbody");
  const more = make("button", { type: "button", class: "quiet", onclick: () => { chosen.rows += PAGE_ROWS; changed(); } });
  const select = {
    people: selection("People", [["", "any number"], ["one", "one"], ["several", "several"], ["none", "none"]], "", (value) => set("people", value)),
    state: selection("Show", states(), "", (value) => set("state", value)),
    sort: selection("Order", ORDERS, "name", (value) => set("sort", value)),
  };
  const search = make("input", {
    type: "search",
    placeholder: "part of a name",
    oninput: (event) => set("search", event.target.value.trim().toLowerCase()),
  });
  root.append(
    make("h1", { tabindex: -1 }, named(index.title)),
    figures(),
    make(
      "div",
      { class: "pair" },
      make("div", { class: "card" }, make("h2", {}, "Mix of emotions"), mix, buttons.element),
      lastRun((state) => { select.state.querySelector("select").value = state; set("state", state); }),
    ),
    ...drift(),
    ...failures(),
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
      make("caption", { class: "unseen" }, "Media; each name opens its timeline"),
      make("thead", {}, make("tr", {}, make("td"), ["Medium", "Timeline", "People", "Faces", "Emotion"].map((name) => make("th", { scope: "col" }, name)))),
      body,
    ),
    more,
  );
  changed();
  return changed;

  function set(name, value) {
    chosen[name] = value;
    chosen.rows = PAGE_ROWS;
    changed();
  }

  function changed() {
    const shown = shownMedia();
    const totals = index.labels.map((_, label) => total(shown.map((each) => each.faces[label])));
    mix.replaceChildren(mixBar(totals));
    buttons.update(totals);
    status.textContent = shown.length === index.media.length
      ? several(shown.length, "medium", "media")
      : `${count(shown.length)} of ${several(index.media.length, "medium", "media")}`;
    body.replaceChildren(...shown.slice(0, chosen.rows).map((each) => mediumRow(each, open)));
    more.hidden = shown.length <= chosen.rows;
    more.textContent = `Show ${Math.min(PAGE_ROWS, shown.length - chosen.rows)} more`;
  }
}

function states() {
  const found = [["", "all media"], ["video", "videos"], ["image", "pictures"]];
  if (index.media.some((medium) => medium.status === "failed")) found.push(["failed", "what failed"]);
  if (index.run) found.push(["last", "what the last run analysed"]);
  return found;
}

function figures() {
  const sum = (name) => total(index.media.map((medium) => medium[name]));
  const failed = index.media.filter((medium) => medium.status === "failed").length;
  const seconds = total(index.media.filter((medium) => medium.kind === "video").map((medium) => medium.seconds));
  const each = [
    ["Media", count(index.media.length), seconds ? `${clock(seconds, 0)} of video` : ""],
    ["People", count(sum("tracks")), "counted anew in each medium"],
    ["Faces", count(sum("faces")), `in ${several(sum("frames"), "frame", "frames")}`],
    ["Failed", count(failed), failed ? "listed below" : "all could be read"],
  ];
  return make(
    "dl",
    { class: "figures" },
    each.map(([name, number, note]) =>
      make("div", { class: name === "Failed" && failed ? "bad" : null }, make("dt", {}, name), make("dd", {}, number, make("small", {}, note))),
    ),
  );
}

function lastRun(choose) {
  const run = index.run;
  if (!run) return null;
  const analysed = index.media.filter((medium) => run.run_ids.includes(medium.run)).length;
  const list = (title, names) =>
    names.length
      ? make("p", {}, `${title}: `, names.slice(0, 10).flatMap((name, i) => [i ? ", " : "", named(name)]), names.length > 10 ? ` and ${count(names.length - 10)} more` : "")
      : null;
  const soft = (...children) => make("p", { class: "soft" }, ...children);
  return make(
    "div",
    { class: "card" },
    make("h2", {}, "The last run"),
    make("p", {}, moment(run.started), run.job ? [", ", named(run.job)] : null, shardsOf(run), `: ${several(run.analysed, "medium", "media")} analysed, ${run.redrawn ? `${count(run.redrawn)} drawn again, ` : ""}${count(run.kept)} kept from before.`),
    run.how === "done" ? null : make("p", { class: "problem" }, run.how ? `It ended early: ${run.message || run.how}` : "It did not come to its end. The same command goes on."),
    soft(run.before ? `The run before began ${moment(run.before)}.` : "No earlier run looked at the same media."),
    list("Failing since then", run.failing),
    list("Mended since then", run.mended),
    list("Not there any more", run.vanished),
    list("Removed, because not there any more", run.pruned),
    run.drift.length ? null : run.drift_note ? soft(`Figures: ${run.drift_note}.`) : null,
    analysed && analysed < index.media.length
      ? make("button", { type: "button", class: "quiet", onclick: () => choose("last") }, "Show only what it analysed")
      : null,
  );
}

function shardsOf(run) {
  if (!run.of_shards) return "";
  return run.shards === run.of_shards ? `, in ${count(run.shards)} shards` : `, ${count(run.shards)} of ${count(run.of_shards)} shards alone`;
}

// What was not as on other nights.
function drift() {
  const lines = index.run?.drift ?? [];
  if (!lines.length) return [];
  return [make("div", { class: "card odd" }, make("h2", {}, "Unlike earlier runs"), make("ul", { class: "plain" }, lines.map((line) => make("li", {}, named(line)))))];
}

function failures() {
  const failed = index.media.filter((medium) => medium.status === "failed");
  if (!failed.length) return [];
  const item = (medium) => make("li", {}, make("a", { href: addressOf(medium) }, named(medium.name)), make("p", {}, named(medium.message)));
  const rest = failed.slice(5);
  const card = make("div", { class: "card bad" }, make("h2", {}, "What failed"), make("ul", { class: "plain" }, failed.slice(0, 5).map(item)));
  if (rest.length) {
    const list = make("ul", { class: "plain" }, rest.slice(0, 500).map(item));
    card.append(make("details", {}, make("summary", {}, `${count(rest.length)} more`), list));
  }
  return [card];
}

function mediumRow({ medium, faces }) {
  const all = total(faces);
  const first = greatest(faces.map((each, label) => (chosen.emotions.size && !chosen.emotions.has(label) ? -1 : each)));
  const thumbnail = make("td", { class: "face" });
  const show = (src) => thumbnail.append(make("img", { src, alt: "", width: 40, height: 40, loading: "lazy", onerror: (event) => event.target.remove() }));
  if (medium.face) show(medium.face);
  else if (isInside(medium) && medium.tracks) {
    timelineOf(medium).then((timeline) => {
      const seen = timeline.tracks.find((track) => track.thumbnail);
      if (seen) show(seen.thumbnail);
    }, () => {});
  }
  const kind = medium.kind === "image" ? "picture" : medium.seconds ? clock(medium.seconds, 0) : "video";
  let mostly = make("span", { class: "soft" }, medium.faces ? `all below ${percent(chosen.confidence)}` : "no face");
  if (medium.status === "failed") mostly = make("span", { class: "failed" }, "failed");
  else if (all) mostly = [emotion(first), " ", make("span", { class: "number" }, percent(faces[first] / all))];
  return make(
    "tr",
    {},
    thumbnail,
    make("th", { scope: "row" }, make("a", { href: addressOf(medium) }, named(medium.name)), make("small", {}, kind)),
    make("td", { class: "strip" }, medium.strip.length ? strip(medium) : null),
    make("td", { class: "amount", "data-name": "people" }, count(medium.tracks)),
    make("td", { class: "amount", "data-name": "faces" }, count(medium.faces)),
    make("td", { class: "mostly" }, mostly),
  );
}

// The leading emotion over the length of a medium, pale where less confident than chosen.
function strip(medium) {
  const runs = [];
  medium.strip.forEach((value, cell) => {
    const own = Math.floor(value / CONFIDENCE_STEPS);
    const label = own < 0 || !medium.labels.length ? own : medium.labels[own];
    const on = !chosen.emotions.size || chosen.emotions.has(label);
    const sure = value % CONFIDENCE_STEPS >= Math.round(chosen.confidence * CONFIDENCE_STEPS);
    const opacity = on ? (sure ? 1 : PALE) : FADED;
    const last = runs.at(-1);
    if (last?.label === label && last.opacity === opacity) last.cells++;
    else runs.push({ label, opacity, cell, cells: 1 });
  });
  const seen = runs.filter((run) => run.label >= 0);
  const told = seen.map((run) => index.labels[run.label]).filter((name, i, names) => name !== names[i - 1]);
  const words = told.slice(0, 8).join(", then ") + (told.length > 8 ? ", and so on" : "");
  return makeSvg(
    "svg",
    { viewBox: `0 0 ${STRIP_CELLS} 1`, preserveAspectRatio: "none", role: "img", "aria-label": words },
    seen.map((run) =>
      makeSvg("rect", { x: run.cell, width: run.cells, height: 1, fill: index.colours[run.label], "fill-opacity": run.opacity }),
    ),
  );
}
