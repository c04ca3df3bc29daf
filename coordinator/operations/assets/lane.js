// One lane: what it applies, how fast, and what came of it; its charts, and who has it.

import { badge, count, h, ms, put, svg } from "./dom.js";
import { laneCard } from "./lanes.js";
import { listen, live } from "./live.js";

export function lanePage(main, { lanes, name }) {
  const own = lanes.find((each) => each.name === name);
  put(main, h("p", {}, h("a", { href: "#/" }, "All lanes")), h("h1", {}, `Lane ${name}`));
  if (!own) { put(main, h("p", { class: "problem" }, "No lane of this name is yours to see.")); return null; }
  const card = laneCard(own, { isWhole: true });
  const rows = h("tbody");
  const said = h("p", { class: "soft" });
  put(main, card.element,
    h("h2", { id: "kinds" }, "What it applied last, by type and outcome"), said,
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-labelledby": "kinds" }, h("table", { id: "kinds-of-commands" },
      h("thead", {}, h("tr", {}, ["Type", "Outcome", "Commands", "A second", "50 % within", "95 % within", "Share"].map((each, place) =>
        h("th", { scope: "col", class: place > 1 && place < 6 ? "number" : null }, each)))), rows)),
    h("p", { class: "more" }, h("a", { href: `#/commands?lane=${encodeURIComponent(name)}` }, "Its commands"), h("a", { href: `#/letters?lane=${encodeURIComponent(name)}` }, "Its dead letters"), h("a", { href: `#/parked?lane=${encodeURIComponent(name)}` }, "Its parked keys"), h("a", { href: `#/acts?lane=${encodeURIComponent(name)}` }, "What operators did to it")));
  let drawn = "";
  return listen(() => {
    const view = live.lanes[name];
    if (!view) return;
    card.update(view, live.points[name] || []);
    const total = view.kinds.reduce((sum, each) => sum + each.commands, 0);
    const now = JSON.stringify([view.kinds, view.status.rate]);
    if (now === drawn) return;
    drawn = now;
    said.textContent = total ? `Of the last ${count(total)} commands that were seen while somebody watched.` : "";
    rows.replaceChildren(...(total ? view.kinds.map((each) => kindRow(each, total, view.status.rate)) :
      [h("tr", {}, h("td", { colspan: 7, class: "empty" }, "Nothing has been settled since somebody watched first: what the lane applies now appears here."))]));
  });
}

function kindRow(each, total, rate) {
  const share = each.commands / total;
  return h("tr", {},
    h("td", { class: "kind" }, each.type), h("td", {}, badge(each.status)), h("td", { class: "number" }, count(each.commands)),
    h("td", { class: "number" }, rate === null ? "–" : count(Math.round(rate * share * 10) / 10)),
    h("td", { class: "number nowrap" }, ms(each.p50_ms)), h("td", { class: "number nowrap" }, ms(each.p95_ms)),
    h("td", {}, svg("svg", { class: "share", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "all", width: 100, height: 8 }), svg("rect", { width: (share * 100).toFixed(1), height: 8 }))));
}
