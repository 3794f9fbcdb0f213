// Switches between the views. The fragment of the address names the open one, so that the browser's "back" works.

const THEMES = { auto: "Theme: system", light: "Theme: light", dark: "Theme: dark" };
let redraw = () => {};

function addressOf(medium) {
  return `#medium=${encodeURIComponent(medium.name)}`;
}

function parseAddress(address) {
  const given = new URLSearchParams(address.replace(/^#/, ""));
  const time = Number.parseFloat(given.get("t"));
  return { name: given.get("medium"), time: Number.isFinite(time) ? time : null, person: given.get("person") };
}

function route(views, first) {
  const target = parseAddress(location.hash);
  const medium = target.name === null ? null : index.media.find((each) => each.name === target.name);
  views.overview.hidden = Boolean(medium);
  views.medium.hidden = !medium;
  if (medium) redraw = buildMedium(views.medium, medium, target);
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
  // A browser that stores nothing for local files forgets the choice with the page.
  try { theme = localStorage.getItem("batchemo-theme") ?? theme; } catch { /* not stored */ }
  use(names.includes(theme) ? theme : "auto");
  button.addEventListener("click", () => {
    const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
    use(next);
    try { localStorage.setItem("batchemo-theme", next); } catch { /* not stored */ }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
}

async function start() {
  const views = { overview: document.getElementById("overview"), medium: document.getElementById("medium"), scroll: 0, list: () => {} };
  themes();
  try {
    await readIndex();
  } catch (error) {
    document.getElementById("main").append(make("p", { class: "problem" }, `This browser cannot read the page's data (${error.message}). Try a newer one.`));
    return;
  }
  filters.confidence = Math.round(10 * (index.media.find((medium) => medium.frames)?.uncertain ?? 0.5)) / 10;
  document.getElementById("made").textContent = `Built ${formatDate(index.built)} with batchemo ${index.version}. Lines are smoothed over ${index.smooth} s.`;
  views.list = buildOverview(views.overview);
  addEventListener("hashchange", () => route(views, false));
  addEventListener("scroll", () => { if (!views.overview.hidden) views.scroll = scrollY; }, { passive: true });
  route(views, true);
  document.documentElement.dataset.ready = "yes";
}

start();
