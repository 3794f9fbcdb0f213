// One medium: its annotated copy, and a timeline for each track. A click on a timeline seeks in the copy.

const TRACKS_PER_PAGE = 30;
const MIN_RANGE_S = 0.5;
// Seconds after the start of a frame to seek to: rounding would show the one before.
const SEEK_OFFSET_S = 0.002;
// Seconds: a smaller start offset is not visible.
const MIN_START_OFFSET_S = 0.05;
const HINT = "Lines: smoothed probabilities, pale below the minimum confidence. Bands: episodes. Click or drag to seek; arrow keys step through frames.";

function buildMedium(root, medium, target) {
  const view = { from: 0, to: 0, cursor: 0, length: medium.starts + Math.max(medium.seconds, 0.04), raw: false, person: target.person ?? "" };
  view.to = view.length;
  const buttons = emotionButtons(changed);
  const mix = make("div");
  const people = make("div", { class: "people" });
  const now = make("p", { class: "now number", "aria-live": "off" });
  const player = buildPlayer(medium, follow);
  const toolbar = make("div", { class: "filters" });
  const hint = make("p", { class: "hint soft", hidden: true }, HINT);
  let charts = [];
  let shown = TRACKS_PER_PAGE;
  let timeline = null;

  root.replaceChildren();
  fill(root, {}, [
    navigation(medium),
    make("h1", { tabindex: -1 }, nameNode(medium.name)),
    make("p", { class: "soft facts" }, factsText(medium)),
    medium.message ? make("p", { class: medium.status === "failed" ? "problem" : "remark" }, nameNode(medium.message)) : null,
    make("div", { class: "medium" }, make("div", { class: "player" }, player.element, now), make("div", { class: "side" }, medium.faces ? [mix, buttons.element, toolbar, hint] : null, people)),
  ]);
  people.append(make("p", { class: "soft" }, "Loading the timeline …"));
  timelineOf(medium).then((found) => {
    timeline = found;
    toolbar.replaceChildren(...tools());
    hint.hidden = medium.kind !== "video";
    if (timeline.step) hint.append(` To keep this page small, raw values are means over ${timeline.step} s; the tables hold every face.`);
    if (target.time !== null) seek(target.time);
    changed();
  }, (error) => people.replaceChildren(make("p", { class: "problem" }, `${error.message}; rebuild the page with: batchemo report`)));
  return changed;

  function tools() {
    const names = [["", "all"], ...timeline.tracks.map((track) => [String(track.id), `person ${track.id}`])];
    const raw = make("input", { type: "checkbox", onchange: (event) => { view.raw = event.target.checked; redraw(); } });
    const button = (name, text, onclick) => make("button", { type: "button", class: "quiet", "aria-label": name, title: name, onclick }, text);
    return [
      confidenceSlider(changed),
      timeline.tracks.length > 1 ? selectField("Person", names, view.person, (value) => { view.person = value; changed(); }) : null,
      medium.kind === "video" && timeline.tracks.length ? make("label", { class: "field check", title: "Also show the probabilities of each face before smoothing" }, raw, "Raw values") : null,
      medium.kind === "video" && timeline.tracks.length
        ? make("div", { class: "zoom", role: "group", "aria-label": "Visible time range" },
            button("Earlier", "‹", () => pan(-0.5)),
            button("Later", "›", () => pan(0.5)),
            button("Zoom out", "−", () => zoom(2)),
            button("Zoom in", "+", () => zoom(0.5)),
            button("Whole video", "All", () => zoom(Infinity)))
        : null,
    ].filter(Boolean);
  }

  function changed() {
    const totals = facesByLabel(medium);
    mix.replaceChildren(distributionBar(totals));
    buttons.update(totals);
    if (!timeline) return;
    const wanted = timeline.tracks.filter((track) => (view.person === "" || String(track.id) === view.person) && shows(track));
    const kept = charts.map((chart) => chart.track.id).join() === wanted.slice(0, shown).map((track) => track.id).join();
    if (!kept || !charts.length) list(wanted);
    redraw();
  }

  // Whether a face of the track shows a selected emotion.
  function shows(track) {
    return !filters.emotions.size || [...filters.emotions].some((label) => track.peaks[label] >= Math.round(100 * filters.confidence));
  }

  function list(wanted) {
    const build = medium.kind === "video" ? trackCard : faceCard;
    const cards = wanted.slice(0, shown).map((track) => build(track, view, { seek, hover, play: player.play, zoom, pan }));
    charts = cards.map((card) => card.chart);
    people.replaceChildren(...cards.map((card) => card.element));
    if (!wanted.length) people.append(make("p", { class: "soft" }, timeline.tracks.length ? "No person matches the filters." : noFaceText(medium)));
    if (wanted.length > shown) {
      people.append(make("button", { type: "button", class: "quiet", onclick: () => { shown += TRACKS_PER_PAGE; changed(); } }, `Show more (${formatPlural(wanted.length, "person", "people")} in all)`));
    }
  }

  function redraw() {
    for (const chart of charts) chart.draw();
    move(view.cursor);
  }

  function move(time) {
    view.cursor = time;
    if (medium.kind === "video") now.textContent = timeline?.tracks.length ? `${formatTime(time, 2)} of ${formatTime(view.length, 0)}` : "";
    for (const chart of charts) {
      chart.placeCursor(time);
      chart.showValues(null);
    }
  }

  // Moves the cursor to the video's time, and the visible range with it, unless the user has moved that elsewhere.
  function follow(time) {
    const inside = (each) => each >= view.from && each <= view.to;
    if (inside(view.cursor) && !inside(time)) showRange(time - (view.to - view.from) / 10, view.to - view.from);
    move(time);
  }

  function seek(time) {
    time = Math.min(Math.max(time, 0), view.length);
    const span = view.to - view.from;
    if (time < view.from || time > view.to) showRange(time - span / 2, span);
    move(time);
    player.seek(time);
  }

  function hover(chart, time) {
    chart.showValues(time);
  }

  function showRange(from, span) {
    view.from = Math.min(Math.max(from, 0), view.length - span);
    view.to = view.from + span;
    for (const chart of charts) chart.draw();
  }

  // By a share of the visible range.
  function pan(share) {
    const span = view.to - view.from;
    showRange(view.from + share * span, span);
    move(view.cursor);
  }

  function zoom(factor) {
    const span = Math.min(Math.max((view.to - view.from) * factor, MIN_RANGE_S), view.length);
    showRange(view.cursor - span / 2, span);
    move(view.cursor);
  }
}

// Links to the list, and to the previous and next medium of the filtered list.
function navigation(medium) {
  const media = filteredMedia().map((each) => each.medium);
  const at = media.indexOf(medium);
  const neighbour = (name, sign, other) => (other ? make("a", { href: addressOf(other), rel: name.toLowerCase(), title: other.name }, sign) : make("span", { class: "soft" }, sign));
  return make(
    "nav",
    { class: "navigation", "aria-label": "Media" },
    make("a", { href: "#" }, "← All media"),
    at < 0 || media.length < 2 ? null : make("span", { class: "pager" }, neighbour("Prev", "Previous", media[at - 1]), make("span", { class: "soft number" }, `${formatCount(at + 1)} of ${formatCount(media.length)}`), neighbour("Next", "Next", media[at + 1])),
  );
}

function factsText(medium) {
  const video = medium.kind === "video";
  if (!medium.frames) return video ? "video" : "picture";
  return [
    video ? `video, ${formatTime(medium.seconds)}` : "picture",
    medium.width ? `${medium.width} × ${medium.height} pixels` : "",
    video ? formatPlural(medium.frames, "frame", "frames") : "",
    formatPlural(medium.faces, "face", "faces"),
    video ? formatPlural(medium.tracks, "person", "people") : "",
    medium.starts >= MIN_START_OFFSET_S ? `first frame at ${formatTime(medium.starts, 2)} (time 0 in the tables)` : "",
  ].filter(Boolean).join(" · ");
}

function noFaceText(medium) {
  if (medium.status === "failed" && !medium.frames) return "This medium could not be analysed.";
  return `No face was found. Faces smaller than ${medium.least} pixels are skipped (--min-face-px); faces in profile, turned away or upside down are missed.`;
}

// The annotated copy; calls `moved` with the time of a video as it plays.
function buildPlayer(medium, moved) {
  const none = { seek() {}, play() {} };
  const missing = (text) => make("p", { class: "missing soft" }, text);
  const without = medium.status === "failed" ? "Failed media have no annotated copy." : "There is no annotated copy. Create it with: batchemo run … --annotate";
  if (!medium.copy) return { ...none, element: missing(without) };
  const broken = () => holder.replaceChildren(missing("This browser cannot show the annotated copy; its file is in the folder annotated."));
  const holder = make("div", { class: "holder" });
  if (medium.kind === "image") {
    const name = `${medium.name} with a bounding box, a label and a chart for each face`;
    holder.append(make("a", { href: medium.copy }, make("img", { src: medium.copy, alt: name, onerror: broken })));
    return { ...none, element: holder };
  }
  const video = make("video", { src: medium.copy, controls: true, preload: "metadata", playsinline: true, "aria-label": `Annotated copy of ${medium.name}`, onerror: broken });
  video.style.setProperty("aspect-ratio", `${medium.width || 16} / ${medium.height || 9}`);
  const follow = () => {
    moved(Math.max(video.currentTime - SEEK_OFFSET_S, 0));
    if (!video.paused && video.isConnected) requestAnimationFrame(follow);
  };
  for (const event of ["play", "seeked"]) video.addEventListener(event, follow);
  holder.append(video);
  return {
    element: holder,
    seek(time) { video.currentTime = time + SEEK_OFFSET_S; },
    play() { if (video.paused) video.play().catch(() => {}); else video.pause(); },
  };
}

function trackCard(track, view, actions) {
  const values = make("p", { class: "values number" });
  const chart = trackChart(track, view, actions);
  chart.showValues = (time) => { values.textContent = time === null ? valueText(track, view.cursor) : `${formatTime(time)} · ${valueText(track, time)}`; };
  const last = track.times[track.times.length - 1];
  const title = make("div", {}, make("h2", {}, `Person ${track.id}`), make("p", { class: "soft" }, `${formatTime(track.times[0])} to ${formatTime(last)} · ${formatPlural(track.faces, "face", "faces")}`));
  const face = track.thumbnail
    ? make("button", { type: "button", class: "portrait", "aria-label": `Go to the best frame of person ${track.id}, at ${formatTime(track.best)}`, onclick: () => actions.seek(track.best) }, make("img", { src: track.thumbnail, alt: "", width: 48, height: 48 }))
    : null;
  const element = make("article", { class: "card track" }, make("div", { class: "head" }, face, title, values), chart.element, episodeTable(track, actions));
  return { element, chart };
}

function episodeTable(track, actions) {
  if (!track.episodes.length) return make("p", { class: "soft none" }, "No episodes: no emotion is clear for long enough.");
  const rows = make("tbody");
  const fillRows = () => {
    if (rows.firstChild) return;
    rows.append(...track.episodes.slice(0, 1000).map((each) =>
      make(
        "tr",
        {},
        make("td", {}, emotionLabel(each.label)),
        make("td", {}, make("button", { type: "button", class: "link number", onclick: () => actions.seek(each.start) }, formatTime(each.start))),
        make("td", {}, make("button", { type: "button", class: "link number", onclick: () => actions.seek(each.apex) }, formatTime(each.apex))),
        make("td", { class: "number" }, formatTime(each.end)),
        make("td", { class: "number" }, formatPercent(each.peak)),
      ),
    ));
  };
  const names = ["Emotion", "Onset", "Apex", "Offset", "Peak probability"];
  return make(
    "details",
    { ontoggle: fillRows },
    make("summary", {}, formatPlural(track.episodes.length, "episode", "episodes")),
    make("table", { class: "episodes" }, make("caption", { class: "visually-hidden" }, `Episodes of person ${track.id}`), make("thead", {}, make("tr", {}, names.map((name) => make("th", { scope: "col" }, name)))), rows),
  );
}

// A face in a picture: its probabilities as bars.
function faceCard(track) {
  const values = meansAt(track, track.times[0], index.smooth);
  const order = values.map((_, label) => label).filter((label) => values[label] >= 0.005).sort((a, b) => values[b] - values[a]);
  const bars = order.map((label) =>
    make(
      "li",
      { class: filters.emotions.size && !filters.emotions.has(label) ? "off" : null },
      make("span", {}, index.labels[label]),
      make("span", { class: "bar", "aria-hidden": "true" }, make("span", { style: { width: `${100 * values[label]}%`, "background-color": index.colours[label] } })),
      make("span", { class: "number" }, formatPercent(values[label])),
    ),
  );
  const face = track.thumbnail ? make("img", { src: track.thumbnail, alt: "", width: 48, height: 48 }) : null;
  const unsure = values[argmax(values)] < filters.confidence;
  const element = make(
    "article",
    { class: `card track${unsure ? " off" : ""}` },
    make("div", { class: "head" }, face, make("h2", {}, `Person ${track.id}`), unsure ? make("p", { class: "values soft" }, "below the minimum confidence") : null),
    make("ul", { class: "bars" }, bars),
  );
  return { element, chart: { track, draw() {}, placeCursor() {}, showValues() {} } };
}
