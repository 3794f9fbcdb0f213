// One medium: its annotated copy, and a timeline for each track that seeks in it.

const MOST_TRACKS = 30;
const SHORTEST_VIEW = 0.5;
// Seconds: a little later than a frame begins, or rounding would show the one before.
const INTO_FRAME = 0.002;
// Seconds: what is less, nobody sees.
const WORTH_SAYING = 0.05;
const HINT = "Lines are probabilities, pale where less confident than chosen; bands are episodes. Click or drag to go there, or step with the arrow keys.";

function buildMedium(root, medium, place) {
  const view = { from: 0, to: 0, cursor: 0, length: medium.starts + Math.max(medium.seconds, 0.04), raw: false, person: place.person ?? "" };
  view.to = view.length;
  const buttons = emotionButtons(changed);
  const mix = make("div");
  const people = make("div", { class: "people" });
  const now = make("p", { class: "now number", "aria-live": "off" });
  const stage = buildStage(medium, follow);
  const toolbar = make("div", { class: "filters" });
  const hint = make("p", { class: "hint soft", hidden: true }, HINT);
  let charts = [];
  let shown = MOST_TRACKS;
  let timeline = null;

  root.replaceChildren();
  fill(root, {}, [
    ways(medium),
    make("h1", { tabindex: -1 }, named(medium.name)),
    make("p", { class: "soft facts" }, facts(medium)),
    medium.message ? make("p", { class: medium.status === "failed" ? "problem" : "remark" }, named(medium.message)) : null,
    make("div", { class: "medium" }, make("div", { class: "stage" }, stage.element, now), make("div", { class: "side" }, medium.faces ? [mix, buttons.element, toolbar, hint] : null, people)),
  ]);
  people.append(make("p", { class: "soft" }, "Reading the timeline …"));
  timelineOf(medium).then((found) => {
    timeline = found;
    toolbar.replaceChildren(...tools());
    hint.hidden = medium.kind !== "video";
    if (timeline.step) hint.append(` To keep the page small, raw values are means over ${timeline.step} s; the tables hold every face.`);
    if (place.time !== null) seek(place.time);
    changed();
  }, (error) => people.replaceChildren(make("p", { class: "problem" }, `${error.message}; build the page again with: batchemo report`)));
  return changed;

  function tools() {
    const names = [["", "everyone"], ...timeline.tracks.map((track) => [String(track.id), `person ${track.id}`])];
    const raw = make("input", { type: "checkbox", onchange: (event) => { view.raw = event.target.checked; redraw(); } });
    const button = (name, text, act) => make("button", { type: "button", class: "quiet", "aria-label": name, title: name, onclick: act }, text);
    return [
      confidenceSlider(changed),
      timeline.tracks.length > 1 ? selection("Person", names, view.person, (value) => { view.person = value; changed(); }) : null,
      medium.kind === "video" && timeline.tracks.length ? make("label", { class: "field check", title: "The probabilities of each face, before they are averaged over time" }, raw, "Raw values") : null,
      medium.kind === "video" && timeline.tracks.length
        ? make("div", { class: "zoom", role: "group", "aria-label": "What is in view" }, 
            button("Earlier", "‹", () => pan(-0.5)),
            button("Later", "›", () => pan(0.5)),
            button("Zoom out", "−", () => zoom(2)),
            button("Zoom in", "+", () => zoom(0.5)),
            button("All of it", "All", () => zoom(Infinity)))
        : null,
    ].filter(Boolean);
  }

  function changed() {
    const totals = facesByLabel(medium);
    mix.replaceChildren(mixBar(totals));
    buttons.update(totals);
    if (!timeline) return;
    const wanted = timeline.tracks.filter((track) => (view.person === "" || String(track.id) === view.person) && shows(track));
    const kept = charts.map((chart) => chart.track.id).join() === wanted.slice(0, shown).map((track) => track.id).join();
    if (!kept || !charts.length) list(wanted);
    redraw();
  }

  // By emotion: tracks with a face that shows a chosen one.
  function shows(track) {
    return !chosen.emotions.size || [...chosen.emotions].some((label) => track.peaks[label] >= Math.round(100 * chosen.confidence));
  }

  function list(wanted) {
    const build = medium.kind === "video" ? trackCard : faceCard;
    const cards = wanted.slice(0, shown).map((track) => build(track, view, { seek, hover, play: stage.play, zoom, pan }));
    charts = cards.map((card) => card.chart);
    people.replaceChildren(...cards.map((card) => card.element));
    if (!wanted.length) people.append(make("p", { class: "soft" }, timeline.tracks.length ? "Nobody shows what was chosen." : nobody(medium)));
    if (wanted.length > shown) {
      people.append(make("button", { type: "button", class: "quiet", onclick: () => { shown += MOST_TRACKS; changed(); } }, `Show more of ${several(wanted.length, "person", "people")}`));
    }
  }

  function redraw() {
    for (const chart of charts) chart.draw();
    move(view.cursor);
  }

  function move(time) {
    view.cursor = time;
    if (medium.kind === "video") now.textContent = timeline?.tracks.length ? `${clock(time, 2)} of ${clock(view.length, 0)}` : "";
    for (const chart of charts) {
      chart.place(time);
      chart.say(null);
    }
  }

  // The video's own time; what is in view goes along with it, unless the user looks elsewhere.
  function follow(time) {
    const inside = (moment) => moment >= view.from && moment <= view.to;
    if (inside(view.cursor) && !inside(time)) look(time - (view.to - view.from) / 10, view.to - view.from);
    move(time);
  }

  function seek(time) {
    time = Math.min(Math.max(time, 0), view.length);
    const span = view.to - view.from;
    if (time < view.from || time > view.to) look(time - span / 2, span);
    move(time);
    stage.seek(time);
  }

  function hover(chart, time) {
    chart.say(time);
  }

  function look(from, span) {
    view.from = Math.min(Math.max(from, 0), view.length - span);
    view.to = view.from + span;
    for (const chart of charts) chart.draw();
  }

  // By a share of what is in view.
  function pan(share) {
    const span = view.to - view.from;
    look(view.from + share * span, span);
    move(view.cursor);
  }

  function zoom(factor) {
    const span = Math.min(Math.max((view.to - view.from) * factor, SHORTEST_VIEW), view.length);
    look(view.cursor - span / 2, span);
    move(view.cursor);
  }
}

// To the list, and to the medium before and after this one among those that the list shows.
function ways(medium) {
  const media = shownMedia().map((each) => each.medium);
  const at = media.indexOf(medium);
  const beside = (name, sign, other) => (other ? make("a", { href: addressOf(other), rel: name.toLowerCase(), title: other.name }, sign) : make("span", { class: "soft" }, sign));
  return make(
    "nav",
    { class: "ways", "aria-label": "Media" },
    make("a", { href: "#" }, "← All media"),
    at < 0 || media.length < 2 ? null : make("span", { class: "beside" }, beside("Prev", "Previous", media[at - 1]), make("span", { class: "soft number" }, `${count(at + 1)} of ${count(media.length)}`), beside("Next", "Next", media[at + 1])),
  );
}

function facts(medium) {
  const video = medium.kind === "video";
  if (!medium.frames) return video ? "video" : "picture";
  return [
    video ? `video, ${clock(medium.seconds)}` : "picture",
    medium.width ? `${medium.width} × ${medium.height} pixels` : "",
    video ? several(medium.frames, "frame", "frames") : "",
    several(medium.faces, "face", "faces"),
    video ? several(medium.tracks, "person", "people") : "",
    medium.starts >= WORTH_SAYING ? `first frame at ${clock(medium.starts, 2)}, from where the tables count` : "",
  ].filter(Boolean).join(" · ");
}

function nobody(medium) {
  if (medium.status === "failed" && !medium.frames) return "Nothing of it could be analysed.";
  return `No face was found. Those below ${medium.least} pixels were not searched for (--min-face-px), and those from the side, from behind or upside down are not found.`;
}

// The annotated copy; `moved` is told where a video stands.
function buildStage(medium, moved) {
  const none = { seek() {}, play() {} };
  const missing = (text) => make("p", { class: "missing soft" }, text);
  const without = medium.status === "failed" ? "There is no annotated copy of what failed." : "No annotated copy was written. They come with: batchemo run … --annotate";
  if (!medium.copy) return { ...none, element: missing(without) };
  const broken = () => holder.replaceChildren(missing("The annotated copy cannot be shown here; it stands in the folder annotated."));
  const holder = make("div", { class: "holder" });
  if (medium.kind === "image") {
    const name = `${medium.name} with a box, a name and a chart for each face`;
    holder.append(make("a", { href: medium.copy }, make("img", { src: medium.copy, alt: name, onerror: broken })));
    return { ...none, element: holder };
  }
  const video = make("video", { src: medium.copy, controls: true, preload: "metadata", playsinline: true, "aria-label": `Annotated copy of ${medium.name}`, onerror: broken });
  video.style.setProperty("aspect-ratio", `${medium.width || 16} / ${medium.height || 9}`);
  const follow = () => {
    moved(Math.max(video.currentTime - INTO_FRAME, 0));
    if (!video.paused && video.isConnected) requestAnimationFrame(follow);
  };
  for (const event of ["play", "seeked"]) video.addEventListener(event, follow);
  holder.append(video);
  return {
    element: holder,
    seek(time) { video.currentTime = time + INTO_FRAME; },
    play() { if (video.paused) video.play().catch(() => {}); else video.pause(); },
  };
}

function trackCard(track, view, act) {
  const said = make("p", { class: "said number" });
  const chart = trackChart(track, view, act);
  chart.say = (time) => { said.textContent = time === null ? reading(track, view.cursor) : `${clock(time)} · ${reading(track, time)}`; };
  const last = track.times[track.times.length - 1];
  const title = make("div", {}, make("h2", {}, `Person ${track.id}`), make("p", { class: "soft" }, `${clock(track.times[0])} to ${clock(last)} · ${several(track.faces, "face", "faces")}`));
  const face = track.thumbnail
    ? make("button", { type: "button", class: "portrait", "aria-label": `Go to the best view of person ${track.id}, at ${clock(track.best)}`, onclick: () => act.seek(track.best) }, make("img", { src: track.thumbnail, alt: "", width: 48, height: 48 }))
    : null;
  const element = make("article", { class: "card track" }, make("div", { class: "head" }, face, title, said), chart.element, episodeTable(track, act));
  return { element, chart };
}

function episodeTable(track, act) {
  if (!track.episodes.length) return make("p", { class: "soft none" }, "No episode: no emotion shows clearly for long enough.");
  const rows = make("tbody");
  const fillRows = () => {
    if (rows.firstChild) return;
    rows.append(...track.episodes.slice(0, 1000).map((each) =>
      make(
        "tr",
        {},
        make("td", {}, emotion(each.label)),
        make("td", {}, make("button", { type: "button", class: "link number", onclick: () => act.seek(each.start) }, clock(each.start))),
        make("td", {}, make("button", { type: "button", class: "link number", onclick: () => act.seek(each.apex) }, clock(each.apex))),
        make("td", { class: "number" }, clock(each.end)),
        make("td", { class: "number" }, percent(each.peak)),
      ),
    ));
  };
  const names = ["Emotion", "From", "Strongest", "To", "Probability then"];
  return make(
    "details",
    { ontoggle: fillRows },
    make("summary", {}, several(track.episodes.length, "episode", "episodes")),
    make("table", { class: "episodes" }, make("caption", { class: "unseen" }, `Episodes of person ${track.id}`), make("thead", {}, make("tr", {}, names.map((name) => make("th", { scope: "col" }, name)))), rows),
  );
}

// A face in a picture has no timeline: its probabilities as bars.
function faceCard(track) {
  const values = valuesAt(track, track.times[0], index.smooth);
  const order = values.map((_, label) => label).filter((label) => values[label] >= 0.005).sort((a, b) => values[b] - values[a]);
  const bars = order.map((label) =>
    make(
      "li",
      { class: chosen.emotions.size && !chosen.emotions.has(label) ? "off" : null },
      make("span", {}, index.labels[label]),
      make("span", { class: "bar", "aria-hidden": "true" }, make("span", { style: { width: `${100 * values[label]}%`, "background-color": index.colours[label] } })),
      make("span", { class: "number" }, percent(values[label])),
    ),
  );
  const face = track.thumbnail ? make("img", { src: track.thumbnail, alt: "", width: 48, height: 48 }) : null;
  const unsure = values[greatest(values)] < chosen.confidence;
  const element = make(
    "article",
    { class: `card track${unsure ? " off" : ""}` },
    make("div", { class: "head" }, face, make("h2", {}, `Person ${track.id}`), unsure ? make("p", { class: "said soft" }, "less confident than chosen") : null),
    make("ul", { class: "bars" }, bars),
  );
  return { element, chart: { track, draw() {}, place() {}, say() {} } };
}
