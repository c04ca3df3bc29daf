// "Order 17 is stuck": what there is of an id that somebody has, where it is, why, and what to do.

import { get } from "./api.js";
import { badge, h, ms, problem, put, seconds, svg, time } from "./dom.js";

const AGAIN_MS = 3000;

export function findForm(what = "") {
  const input = h("input", { name: "what", type: "search", value: what, required: true, maxlength: 300, autocomplete: "off", placeholder: "order 17, seats/7, an id…", "aria-label": "Find by any id: a saga's, a row's, a command's, or an idempotency key" });
  return h("form", { class: "find", role: "search", onsubmit: (event) => {
    event.preventDefault();
    location.hash = `#/find?${new URLSearchParams({ what: input.value.trim() })}`;
  } }, input, h("button", { class: "main" }, "Find"));
}

export function findPage(main, { query }) {
  const what = query.get("what") || "";
  const subject = query.get("subject") || "";
  const place = h("div", { id: "found", "aria-live": "polite" });
  put(main, h("h1", {}, what ? `Find: ${what}` : "Find"), place);
  if (!what) {
    put(place, h("div", { class: "card" }, h("p", {}, "Type what somebody gave you: it is looked for in all lanes."), h("ul", {},
      h("li", {}, h("b", {}, "order 17"), ": a saga, with its steps and where they stand"),
      h("li", {}, h("b", {}, "seats/7"), ", ", h("b", {}, "slots/kim/17"), " by a key of several columns, or ", h("b", {}, "17"), ": rows, and what waits for them"),
      h("li", {}, h("b", {}, "01a20505-b7c5-73ed-…"), ": a command"),
      h("li", {}, h("b", {}, "order-1"), ": an idempotency key"),
      h("li", {}, h("b", {}, "seats.book"), ", or ", h("b", {}, "BookSeat"), ": commands of this type that failed, and the last that were settled"))));
    return null;
  }
  let timer = null;
  let isGone = false;
  let drawn = "";
  const look = async () => {
    let found;
    try { found = await get("/api/find", { what, subject }); } catch (error) {
      if (isGone) return;
      drawn = "";
      place.replaceChildren(problem(error));
      timer = setTimeout(look, AGAIN_MS);
      return;
    }
    if (isGone) return;
    const text = JSON.stringify(found);
    // What is read aloud, or is being selected, is not drawn again for nothing.
    if (text !== drawn) { drawn = text; place.replaceChildren(...all(found)); }
    if (isUnderWay(found)) timer = setTimeout(look, AGAIN_MS);
  };
  look();
  return () => { isGone = true; clearTimeout(timer); };
}

const isUnderWay = (found) => found.away.length > 0 || found.nothing !== null || found.commands.some((each) => each.is_stuck || each.stops.at(-1).kind !== "settled") ||
  found.rows.some((each) => each.why) || found.sagas.some((each) => !each.ended_at || each.is_stuck);

function all(found) {
  return [
    ...found.sagas.map(saga),
    ...found.commands.map(command),
    ...found.rows.map(row),
    ...found.away.map((text) => problem(new Error(`not looked into: ${text}`))),
    found.nothing === null ? null : h("div", { class: "card" }, h("h2", {}, found.away.length ? "Not known" : "Nothing found"), h("p", {}, found.nothing)),
  ].filter(Boolean);
}

function answer({ is_stuck: isStuck, where, why, todo, stops = [] }) {
  const letter = stops.find((each) => each.letter);
  return h("dl", { class: `answer ${isStuck ? "stuck" : ""}` },
    h("div", {}, h("dt", {}, "Where"), h("dd", { "data-answer": "where" }, where)),
    why ? h("div", {}, h("dt", {}, "Why"), h("dd", { "data-answer": "why" }, why)) : null,
    todo ? h("div", {}, h("dt", {}, "What to do"), h("dd", { "data-answer": "todo" }, todo)) : null,
    letter ? h("div", {}, h("dt", {}, "Here"), h("dd", {}, h("a", { href: `#/letters/${encodeURIComponent(letter.lane)}/${letter.letter}` }, `look at letter ${letter.letter} of ${letter.lane}${todo?.includes("coordinator dead replay") ? ", edit and replay it" : ""}`))) : null);
}

function saga(each) {
  return h("section", { class: "card", "aria-label": `${each.saga} ${each.id}`, "data-saga": each.saga },
    h("div", { class: "head" }, h("h2", {}, `${each.saga} ${each.id}`), badge(each.status.replace("_", " "), each.status), each.is_stuck ? badge("stuck") : null,
      h("span", { class: "soft" }, `lane ${each.lane}`), each.began_at ? h("span", { class: "soft" }, "began ", time(each.began_at)) : null),
    answer(each),
    h("h3", {}, "Its steps"),
    steps(each),
    each.stops.length ? h("div", {}, h("h3", {}, `The way of the step ${each.ended_at ? "at which it stopped" : "that waits"}`), way(each.stops)) : null);
}

function steps({ steps: done, declared, ended_at: ended }) {
  const begin = done.length ? Date.parse(done[0].began_at) : 0;
  const end = Math.max(begin + 1, ended ? Date.parse(ended) : Date.now(), ...done.map((each) => Date.parse(each.ended_at || each.began_at)));
  const begun = new Set(done.map((each) => each.name));
  const bar = (from, to, kind) => svg("svg", { class: "track", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "all", width: 100, height: 10 }),
    svg("rect", { class: kind, x: Math.min(99, ((from - begin) / (end - begin)) * 100).toFixed(2), width: Math.max(1, ((to - from) / (end - begin)) * 100).toFixed(2), height: 10 }));
  const rows = done.map((each) => {
    const from = Date.parse(each.began_at);
    const to = each.ended_at ? Date.parse(each.ended_at) : Date.now();
    return h("tr", { class: each.status === "waiting" ? "waits" : null },
      h("td", {}, each.direction === "do" ? each.name : `${each.direction} ${each.name}`),
      h("td", {}, h("a", { href: `#/commands/${each.command_id}`, title: each.command_id }, each.command_type)),
      h("td", {}, badge(each.status), each.error_code ? h("div", { class: "soft" }, `${each.error_code}: ${each.error_message || ""}`) : null),
      h("td", { class: "number nowrap" }, each.status === "waiting" ? `for ${seconds((to - from) / 1000)}` : ms(to - from)),
      h("td", { class: "span" }, bar(from, to, each.status === "waiting" ? "waits" : each.status === "applied" ? "part" : "bad")));
  });
  const later = ended ? [] : declared.filter((each) => !begun.has(each)).map((each) => h("tr", { class: "later" }, h("td", {}, each), h("td", { colspan: 4 }, "not begun")));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Steps" }, h("table", { class: "steps" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Step"), h("th", { scope: "col" }, "Command"), h("th", { scope: "col" }, "Status"), h("th", { scope: "col", class: "number" }, "Took"), h("th", { scope: "col" }, ended ? "From its beginning to its end" : "From its beginning until now"))),
    h("tbody", {}, rows, later)));
}

function way(stops) {
  return h("ol", { class: "time" }, stops.map((each) => h("li", { class: each.why ? "bad" : each.kind === "settled" ? "good" : "warn" },
    h("div", {}, each.type ? h("b", {}, `${each.type}: `) : null, each.said ? `${each.text}: ${each.said}` : each.text),
    each.why ? h("div", { class: "bad" }, each.why) : null,
    h("div", { class: "at" }, each.at ? time(each.at) : "now", each.command_id ? h("span", {}, " · ", h("a", { class: "id", href: `#/commands/${encodeURIComponent(each.command_id)}` }, each.command_id)) : null))));
}

function command(each) {
  return h("section", { class: "card", "aria-label": `Command ${each.command_id}` },
    h("div", { class: "head" }, h("h2", {}, "Command ", h("a", { class: "id", href: `#/commands/${encodeURIComponent(each.command_id)}` }, each.command_id)), each.is_stuck ? badge("stuck") : null, h("span", { class: "soft" }, `lane ${each.lane}`)),
    answer(each), way(each.stops));
}

function row(each) {
  return h("section", { class: "card", "aria-label": `Row ${each.key} of ${each.table}` },
    h("div", { class: "head" }, h("h2", {}, `${each.table}/${each.key}`), each.is_stuck ? badge("stuck") : null, h("span", { class: "soft" }, `lane ${each.lane}`)),
    answer(each), each.row === null ? null : h("pre", { tabindex: 0 }, each.row));
}
