// The lanes as they are: one stream of server-sent events for the whole page.

const POINTS_MAX = 600;
const RECENT_MAX = 25;

export const live = { lanes: {}, points: {}, recent: [], listeners: new Set() };
let source = null;
let last = 0;
let watching = null;

export function listen(listener) {
  live.listeners.add(listener);
  if (Object.keys(live.lanes).length) listener();
  return () => live.listeners.delete(listener);
}

export function start() {
  stop();
  source = new EventSource("/api/events");
  source.addEventListener("lanes", (event) => {
    const told = JSON.parse(event.data);
    last = Date.now();
    if (told.points) live.points = told.points;
    for (const [lane, view] of Object.entries(told.lanes)) {
      live.lanes[lane] = view;
      const points = (live.points[lane] ||= []);
      if (!points.length || view.point[0] - points.at(-1)[0] >= 0.9) points.push(view.point);
      if (points.length > POINTS_MAX) points.shift();
      const known = new Set(live.recent.map((each) => `${each.lane} ${each.sequence}`));
      for (const each of view.recent) if (!known.has(`${lane} ${each.sequence}`)) live.recent.push({ lane, ...each });
    }
    live.recent.sort((one, other) => (one.settled_at < other.settled_at ? 1 : one.settled_at > other.settled_at ? -1 : other.sequence - one.sequence));
    live.recent.length = Math.min(live.recent.length, RECENT_MAX);
    state();
    for (const listener of live.listeners) listener();
  });
  source.onerror = () => {
    state();
    // A refused stream (a session that is over, too many viewers) is not opened again by the browser.
    if (source && source.readyState === EventSource.CLOSED) document.dispatchEvent(new Event("stream-ended"));
  };
  watching = setInterval(state, 1000);
}

export function stop() {
  clearInterval(watching);
  if (source) source.close();
  source = null;
}

function state() {
  const line = document.getElementById("live");
  const old = (Date.now() - last) / 1000;
  const isOn = source && source.readyState === EventSource.OPEN && old < 10;
  const text = isOn ? "live" : last ? `not live for ${Math.round(old)} s` : "connecting";
  line.className = `live ${isOn ? "on" : last ? "off" : ""}`;
  if (line.textContent !== text) line.textContent = text;
}
