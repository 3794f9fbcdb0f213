// Puts the views together: which one is open stands behind the # of the address, so that the browser's "back" works.

const THEMES = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
let redraw = () => {};

function addressOf(medium) {
  return `#medium=${encodeURIComponent(medium.name)}`;
}

function placeOf(address) {
  const given = new URLSearchParams(address.replace(/^#/, ""));
  const time = Number.parseFloat(given.get("t"));
  return { name: given.get("medium"), time: Number.isFinite(time) ? time : null, person: given.get("person") };
}

function route(views, first) {
  const place = placeOf(location.hash);
  const medium = place.name === null ? null : index.media.find((each) => each.name === place.name);
  views.overview.hidden = Boolean(medium);
  views.medium.hidden = !medium;
  if (medium) redraw = buildMedium(views.medium, medium, place);
  else {
    views.medium.replaceChildren();
    redraw = views.list;
    redraw();
  }
  document.title = `${medium ? medium.name : index.title} · batchemo`;
  if (first) return;
  scrollTo(0, medium ? 0 : views.scroll);
  (medium ? views.medium : views.overview).querySelector("h1").focus({ preventScroll: true });
}

function themes() {
  const names = Object.keys(THEMES);
  const button = document.getElementById("theme");
  const use = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = THEMES[theme];
    redraw();
  };
  let theme = "auto";
  // Where a browser keeps nothing for files, the choice lasts as long as the page.
  try { theme = localStorage.getItem("batchemo-theme") ?? theme; } catch { /* as said */ }
  use(names.includes(theme) ? theme : "auto");
  button.addEventListener("click", () => {
    const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
    use(next);
    try { localStorage.setItem("batchemo-theme", next); } catch { /* as said */ }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
}

async function start() {
  const views = { overview: document.getElementById("overview"), medium: document.getElementById("medium"), scroll: 0, list: () => {} };
  themes();
  try {
    await readIndex();
  } catch (error) {
    document.getElementById("main").append(make("p", { class: "problem" }, `This browser cannot unpack the page's data (${error.message}); a newer one can.`));
    return;
  }
  chosen.confidence = Math.round(10 * (index.media.find((medium) => medium.frames)?.uncertain ?? 0.5)) / 10;
  document.getElementById("made").textContent = `Built ${moment(index.built)} by batchemo ${index.version}. Lines are means over ${index.smooth} s.`;
  views.list = buildOverview(views.overview);
  addEventListener("hashchange", () => route(views, false));
  addEventListener("scroll", () => { if (!views.overview.hidden) views.scroll = scrollY; }, { passive: true });
  route(views, true);
  document.documentElement.dataset.ready = "yes";
}

start();
