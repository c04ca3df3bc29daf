// A line over the last minutes, from zero, with its present value and its highest.

import { h, svg, setText } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 56;

export function chart(title, place, words) {
  const area = svg("path", { class: "area" });
  const line = svg("path", { class: "line" });
  const highest = h("span");
  const picture = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, area, line);
  const element = h("figure", {}, picture, h("figcaption", {}, h("span", {}, title), highest));
  return {
    element,
    update(points) {
      const known = points.map((each) => [each[0], each[place]]).filter(([, value]) => value !== null);
      const top = Math.max(0, ...known.map(([, value]) => value));
      const minutes = points.length ? Math.max(1, Math.round((points.at(-1)[0] - points[0][0]) / 60)) : 1;
      setText(highest, known.length ? `max ${words(top)}` : "not known");
      picture.setAttribute("aria-label", known.length ? `${title}: now ${words(known.at(-1)[1])}, at most ${words(top)} in ${minutes} min` : `${title}: not known`);
      if (known.length < 2) { area.removeAttribute("d"); line.removeAttribute("d"); return; }
      const begin = known[0][0];
      const span = Math.max(1, known.at(-1)[0] - begin);
      const places = known.map(([at, value]) =>
        `${(((at - begin) / span) * WIDTH).toFixed(1)} ${(HEIGHT - 2 - (top ? value / top : 0) * (HEIGHT - 8)).toFixed(1)}`);
      line.setAttribute("d", `M${places.join("L")}`);
      area.setAttribute("d", `M0 ${HEIGHT}L${places.join("L")}L${WIDTH} ${HEIGHT}Z`);
    },
  };
}
