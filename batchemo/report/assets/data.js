// Unpacks the data that batchemo/report/packing.py packed, and computes values from it.

const TICKS_A_SECOND = 10000;
let index = null;

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(plain).arrayBuffer());
  const length = new DataView(bytes.buffer).getUint32(0, true);
  return { header: JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length))), content: bytes.subarray(4 + length) };
}

async function readIndex() {
  index = (await unpack(document.getElementById("index").textContent)).header;
  index.media.forEach((medium, number) => {
    medium.number = number;
    medium.searchText = medium.name.toLowerCase();
    medium.timeline = null;
  });
}

// Timelines are in this page or in files beside it; each is read once.

function timelineOf(medium) {
  medium.timeline ??= packedText(medium).then(unpack).then((packed) => readTimeline(medium, packed));
  medium.timeline.catch(() => { medium.timeline = null; });
  return medium.timeline;
}

function isInline(medium) {
  return !medium.file;
}

const loading = new Map();
const policy = globalThis.trustedTypes?.createPolicy("batchemo", { createScriptURL: (address) => address });

globalThis.batchemoTimeline = (text) => loading.get(document.currentScript)?.(text);

function packedText(medium) {
  if (isInline(medium)) return Promise.resolve(document.getElementById(`timeline-${medium.number}`).textContent);
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const settle = (callback, value) => { loading.delete(script); script.remove(); callback(value); };
    loading.set(script, (text) => settle(resolve, text));
    script.addEventListener("error", () => settle(reject, new Error(`${medium.file} cannot be read`)));
    script.src = policy ? policy.createScriptURL(medium.file) : medium.file;
    document.head.append(script);
  });
}

// Time 0 is the first frame in the tables; here, as in the player, it is where sound or pictures begin.
function readTimeline(medium, { header, content }) {
  let at = 0;
  const take = (length) => content.slice(at, (at += length));
  const label = (own) => (medium.labels.length ? medium.labels[own] : own);
  const tracks = header.tracks.map((track) => {
    const ticks = new Uint32Array(take(4 * track.n).buffer);
    const times = new Float64Array(track.n);
    for (let i = 0, sum = 0; i < track.n; i++) times[i] = medium.starts + (sum += ticks[i]) / TICKS_A_SECOND;
    const values = index.labels.map(() => null);
    for (let own = 0; own < header.labels; own++) values[label(own)] = decodeDeltas(take(track.n));
    const thumbnail = take(track.thumbnail);
    return {
      id: track.id,
      faces: track.faces,
      best: medium.starts + track.best,
      times,
      values,
      sums: values.map((percents) => percents && prefixSums(percents)),
      gap: longestGap(times),
      peaks: peakPercents(values, track.n),
      episodes: track.episodes.map(([own, start, apex, end, peak]) => ({ label: label(own), start: medium.starts + start, apex: medium.starts + apex, end: medium.starts + end, peak })),
      thumbnail: thumbnail.length ? URL.createObjectURL(new Blob([thumbnail], { type: "image/jpeg" })) : "",
    };
  });
  return { step: header.step, tracks };
}

// By label, the highest probability, in percent, of the faces where it is the most probable one; -1 if there are none.
function peakPercents(values, length) {
  const peaks = values.map(() => -1);
  for (let i = 0; i < length; i++) {
    let best = -1;
    values.forEach((percents, label) => { if (percents && (best < 0 || percents[i] > values[best][i])) best = label; });
    if (values[best][i] > peaks[best]) peaks[best] = values[best][i];
  }
  return peaks;
}

function decodeDeltas(differences) {
  for (let i = 1; i < differences.length; i++) differences[i] += differences[i - 1];
  return differences;
}

function prefixSums(percents) {
  const sums = new Float64Array(percents.length + 1);
  for (let i = 0; i < percents.length; i++) sums[i + 1] = sums[i] + percents[i];
  return sums;
}

// As in batchemo.episodes: half a second, or 1.5 median steps where faces are sparse.
function longestGap(times) {
  const steps = Float64Array.from(times.subarray(1), (time, i) => time - times[i]).sort();
  return Math.max(index.gap, 1.5 * (steps[steps.length >> 1] ?? 0)) + 1e-6;
}

// The first index whose time is not before the given one.
function lowerBound(times, time) {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Mean probabilities (0 to 1, by label) within `seconds` around `time`; null where the track is out of view.
function meansAt(track, time, seconds) {
  const first = lowerBound(track.times, time - seconds / 2 - 1e-6);
  const last = lowerBound(track.times, time + seconds / 2 + 1e-6);
  if (first < last) return track.sums.map((sums) => (sums ? (sums[last] - sums[first]) / (last - first) / 100 : 0));
  if (!first || first === track.times.length || track.times[first] - track.times[first - 1] > track.gap) return null;
  const near = time - track.times[first - 1] < track.times[first] - time ? first - 1 : first;
  return track.values.map((percents) => (percents ? percents[near] / 100 : 0));
}

function argmax(values) {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
}
