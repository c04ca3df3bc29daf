// Keys for which commands wait, behind one that failed.

import { get, ofLane } from "./api.js";
import { badge, count, h, problem, put, time } from "./dom.js";

const SHOWN_MAX = 200;

export function parkedPage(main, { lanes, query }) {
  const lane = lanes.some((each) => each.name === query.get("lane")) ? query.get("lane") : lanes[0].name;
  const body = h("tbody");
  const said = h("p", { class: "soft", role: "status" }, "looking…");
  const select = h("select", { onchange: (event) => { location.hash = `#/parked?lane=${encodeURIComponent(event.target.value)}`; } },
    lanes.map((each) => h("option", { selected: each.name === lane }, each.name)));
  const columns = ["Key", "Behind the failed command", "Code", "Waiting", "Since", "Actor"];
  put(main,
    h("h1", {}, "Parked keys"),
    h("p", { class: "soft" }, "A command with such a key waits, in order, behind one that failed, until that one is replayed or discarded."),
    h("div", { class: "card row" }, h("label", {}, "Lane", select)), said,
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Parked keys" }, h("table", { id: "parked-keys" },
      h("thead", {}, h("tr", {}, columns.map((each) => h("th", { scope: "col", class: each === "Waiting" ? "number" : null }, each)))), body)),
    h("p", { class: "more" }, h("a", { href: `#/letters?lane=${encodeURIComponent(lane)}` }, "Dead letters of this lane, where a failed command is replayed or discarded")));
  const load = async () => {
    try {
      const { keys } = await get(ofLane(lane, "parked"));
      body.replaceChildren(...(keys.length ? keys.map(row) : [h("tr", {}, h("td", { colspan: columns.length, class: "empty" }, "No command waits for its key."))]));
      said.textContent = keys.length === SHOWN_MAX ? `the first ${SHOWN_MAX}; coordinator parked ${lane} lists all` : "";
    } catch (error) { said.replaceChildren(problem(error)); }
  };
  load();
}

function row(each) {
  return h("tr", {},
    h("td", { class: "id" }, each.ordering_key),
    h("td", {}, h("a", { class: "id", href: `#/commands/${encodeURIComponent(each.failed_id)}` }, each.failed_id)),
    h("td", {}, badge(each.error_code, "failed")), h("td", { class: "number" }, count(each.waiting)),
    h("td", { class: "nowrap" }, time(each.parked_at)), h("td", {}, each.actor || "–"));
}
