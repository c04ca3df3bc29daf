// Dead letters: a page at a time, one whole, replayed in steps.

import { get, ofLane, post } from "./api.js";
import { badge, count, h, named, problem, put, say, time } from "./dom.js";
import { askAndDo } from "./operate.js";

const STEPS = [1, 5, 20, 100];

export function lettersPage(main, context) {
  const { lanes, query } = context;
  const lane = lanes.find((each) => each.name === query.get("lane")) || lanes.find((each) => context.dead(each.name)) || lanes[0];
  const wanted = Object.fromEntries(["type", "code", "contains"].map((name) => [name, query.get(name) || ""]));
  const body = h("tbody");
  const more = h("div", { class: "more" });
  const report = h("div");
  const input = (name, title, extra = {}) => h("label", {}, title, h("input", { name, value: wanted[name], autocomplete: "off", ...extra }));
  const form = h("form", { class: "card row", role: "search", onsubmit: (event) => {
    event.preventDefault();
    const given = [...new FormData(form)].filter(([, value]) => value);
    location.hash = `#/letters?${new URLSearchParams(given)}`;
  } },
    h("label", {}, "Lane", h("select", { name: "lane", onchange: () => form.requestSubmit() }, lanes.map((each) => h("option", { selected: each === lane }, each.name)))),
    input("type", "Type"), input("code", "Code"), lane.operates ? input("contains", "Text in the arguments") : null,
    h("button", { class: "main" }, "Find"));
  const steps = lane.operates ? h("div", { class: "card" },
    h("div", { class: "head" }, h("h2", {}, "Replay in steps"), h("span", { class: "soft" }, "of what is found, the oldest first; it stops at the first failure")),
    h("div", { class: "acts" }, STEPS.map((size) => h("button", { "data-step": size, onclick: () => replaySteps(lane.name, wanted, size, report, reload) }, `${size} at a time`))),
    report) : null;
  put(main, 
    h("h1", {}, "Dead letters"),
    h("p", { class: "soft" }, "Commands that could not be applied, and effects that no worker understood. They stay until they are replayed or discarded."),
    form, steps,
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Dead letters" }, h("table", { id: "letters" },
      h("thead", {}, h("tr", {}, ["Letter", "Type", "Code", "Reason", "Copies", "Since", "Command"].map((each) =>
        h("th", { scope: "col", class: each === "Copies" ? "number" : null }, each)))), body)),
    more);
  const load = async (after) => {
    try {
      const page = await get(ofLane(lane.name, "letters"), { ...wanted, after });
      body.append(...page.letters.map((each) => h("tr", {},
        h("td", { class: "nowrap" }, h("a", { href: `#/letters/${encodeURIComponent(lane.name)}/${each.id}` }, `Letter ${each.id}`)),
        h("td", { class: "kind" }, each.type || "–"), h("td", {}, badge(each.code, "failed")), h("td", { class: "text" }, each.reason),
        h("td", { class: "number" }, count(each.copies)), h("td", { class: "nowrap" }, time(each.dead_at)),
        h("td", { class: "id" }, each.command_id ? h("a", { class: "id", href: `#/commands/${encodeURIComponent(each.command_id)}` }, each.command_id) : "without an id"))));
      if (!body.children.length) body.append(h("tr", {}, h("td", { colspan: 7, class: "empty" }, "No dead letter is found.")));
      more.replaceChildren(page.next ? h("button", { onclick: () => load(page.next) }, "More") : "",
        h("span", { class: "soft" }, page.letters.length ? `${count(body.children.length)} shown` : ""));
    } catch (error) { more.replaceChildren(problem(error)); }
  };
  const reload = () => { body.replaceChildren(); return load(0); };
  load(0);
}

function replaySteps(lane, wanted, size, report, reload) {
  askAndDo({
    title: `Replay letters of ${lane}, ${size} at a time`, button: "Begin",
    text: "Each command is sent once more, behind the queued ones, and its letter is removed. After each step the outcomes are waited for.",
    act: async ({ reason }) => { run(lane, wanted, size, reason, report, reload); return null; },
  });
}

async function run(lane, wanted, size, reason, report, reload) {
  let isStopped = false;
  let after = 0;
  let done = 0;
  const line = h("p", { role: "status" }, "begins…");
  const stop = h("button", { onclick: () => { isStopped = true; } }, "Stop after this step");
  const failures = h("ul");
  report.replaceChildren(line, stop, failures);
  const end = (text) => { stop.remove(); line.textContent = text; say(text); reload(); };
  try {
    while (!isStopped) {
      const page = await get(ofLane(lane, "letters"), { ...wanted, after, limit: size });
      if (!page.letters.length) return end(`${count(done)} replayed: all that was found is done`);
      const letters = page.letters.map((each) => each.id);
      const { results } = await post(ofLane(lane, "letters/replay"), { letters, reason });
      after = letters.at(-1);
      done += results.filter(wentWell).length;
      const bad = results.filter((each) => !wentWell(each));
      if (bad.length) {
        failures.append(...bad.map((each) => h("li", {}, `Letter ${each.letter}: ${words(each)} `, each.replayed_as ? h("a", { class: "id", href: `#/commands/${each.replayed_as}` }, each.replayed_as) : null)));
        return end(`stopped: ${count(done)} went well, ${count(bad.length)} did not`);
      }
      line.textContent = `${count(done)} replayed…`;
      if (!page.next) return end(`${count(done)} replayed: all that was found is done`);
    }
    end(`stopped as you said: ${count(done)} replayed`);
  } catch (error) { end(`stopped: ${error.message}; ${count(done)} went well`); }
}

const wentWell = (each) => each.status === "applied" && (!each.replayed_as || each.outcome === "applied");

function words(each) {
  const why = each.error ? ` (${each.error.code}: ${each.error.message})` : "";
  if (each.status === "pending") return "the lane has not done it yet, and will";
  if (each.status !== "applied") return `it stays: ${each.status}${why}`;
  return each.outcome ? `its command is ${each.outcome}${why}` : "it is sent, and its command is not settled yet";
}

export async function letterPage(main, { lanes, lane: name, number }) {
  const lane = lanes.find((each) => each.name === name);
  put(main, h("p", {}, h("a", { href: `#/letters?lane=${encodeURIComponent(name)}` }, "All dead letters")), h("h1", {}, `Letter ${number} of ${name}`));
  let letter;
  try { letter = await get(ofLane(name, `letters/${number}`)); } catch (error) { put(main, problem(error)); return; }
  const fact = (title, value) => (value === null || value === undefined || value === "" ? null : h("div", { class: String(value.textContent ?? value).length > 30 ? "two" : null }, h("dt", {}, title), h("dd", {}, value)));
  const before = letter.text || "";
  const area = h("textarea", { id: "arguments", spellcheck: "false", readonly: !lane.operates });
  area.value = before;
  const late = h("input", { type: "checkbox" });
  const alone = h("input", { type: "checkbox", id: "alone" });
  const outcome = h("div", { role: "status" });
  const act = (what, extra, title, button, isBad, explanation) => askAndDo({
    title, button, isBad, text: explanation,
    act: async ({ reason }) => {
      const meant = { letters: [Number(number)], reason };
      const fields = JSON.stringify(what === "replay" ? { ...meant, without_deadline: late.checked, alone: alone.checked } : meant);
      // The arguments go as they are written: a number of many digits would not survive JSON.parse.
      const sent = extra === null ? fields : `${fields.slice(0, -1)},"args":${extra}}`;
      const { results } = await post(ofLane(name, `letters/${what}`), sent, { raw: true });
      const each = results[0];
      if (what === "discard" && each.status === "applied") { location.hash = `#/letters?lane=${encodeURIComponent(name)}`; return `letter ${number} is discarded`; }
      outcome.replaceChildren(h("p", { class: wentWell(each) ? "" : "problem", id: "outcome" },
        wentWell(each) ? (each.outcome ? "Replayed, and applied: " : "Replayed. ") : `${words(each)}: `,
        each.replayed_as ? h("a", { class: "id", href: `#/commands/${each.replayed_as}` }, each.replayed_as) : null));
      return wentWell(each) ? `letter ${number} is replayed` : null;
    },
  });
  const replay = () => {
    let extra = null;
    if (area.value !== before) {
      try {
        const parsed = JSON.parse(area.value);
        if (parsed === null || typeof parsed !== "object" || Array.isArray(parsed)) throw new Error("they must be a JSON object");
      } catch (error) { outcome.replaceChildren(problem(new Error(`The arguments cannot be sent: ${error.message}`))); area.focus(); return; }
      extra = area.value;
    }
    act("replay", extra, extra ? `Replay letter ${number} with other arguments` : `Replay letter ${number}`, "Replay", false, "Its command is sent once more under a new id, and the letter is removed.");
  };
  put(main, 
    h("div", { class: "card" },
      h("div", { class: "head" }, h("h2", {}, letter.type || "no type"), badge(letter.code, "failed")),
      h("p", {}, letter.reason),
      h("dl", { class: "facts long" },
        fact("Command", letter.command_id ? h("a", { class: "id", href: `#/commands/${encodeURIComponent(letter.command_id)}` }, letter.command_id) : "without an id"),
        fact("Since", time(letter.dead_at)), fact("For", letter.target), fact("From", letter.origin), fact("Sequence", letter.sequence === null ? null : count(letter.sequence)),
        fact("Copies", count(letter.copies)), fact("Bytes", count(letter.size_bytes)),
        ...optionsOf(letter.options || {}).map(([key, value]) => fact(key, value)))),
    letter.is_hidden ? h("p", { class: "soft" }, "What it holds is shown to operators only.") : h("section", { class: "card", "aria-labelledby": "body" },
      h("h2", { id: "body" }, "Arguments"),
      letter.kept_bytes < letter.size_bytes ? h("p", { class: "soft" }, `Only the first ${count(letter.kept_bytes)} bytes are kept.`) : null,
      h("label", { for: "arguments" }, lane.operates ? "Change them here before you replay the letter." : "As they came."), area,
      lane.operates ? h("div", {}, letter.told ? h("p", { id: "told" }, `What asked for it was told that it failed (${letter.told}), and has gone back, or waits for a verdict: look there first. A replay is applied alone, and nobody is told.`) : null,
        h("p", {}, letter.told ? h("label", { class: "check" }, alone, "alone, and nobody is told") : null, h("label", { class: "check" }, late, "though its deadline is over")),
        h("div", { class: "acts" }, h("button", { class: "main", onclick: replay }, "Replay…"),
          h("button", { class: "bad", onclick: () => act("discard", null, `Discard letter ${number}`, "Discard", true, "It is removed for good. Commands that wait behind it go on.") }, "Discard…"))) : null,
      outcome),
    letter.traceback ? h("section", { class: "card", "aria-labelledby": "trace" }, h("h2", { id: "trace" }, "Traceback"), h("pre", { tabindex: 0 }, letter.traceback)) : null);
}

// What a command had beside its arguments, under names for people.
function optionsOf({ actor, ...others }) {
  const who = actor && actor.subject !== undefined ? [
    ["Actor", named(actor)],
    ...((actor.scopes || []).length ? [["Scopes", actor.scopes.join(", ")]] : []),
  ] : actor ? [["Actor", JSON.stringify(actor)]] : [];
  return [...who, ...Object.entries(others).map(([key, value]) =>
    [key[0].toUpperCase() + key.slice(1).replaceAll("_", " "), typeof value === "string" ? value : JSON.stringify(value)])];
}
