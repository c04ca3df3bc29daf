// The lanes, live.

import { chart } from "./charts.js";
import { ago, badge, count, h, ms, plural, put, seconds, setText, shown, time } from "./dom.js";
import { listen, live } from "./live.js";
import { cancel, drain, pause, resume } from "./operate.js";

export function lanesPage(main, { lanes }) {
  const cards = new Map(lanes.map((each) => [each.name, laneCard(each)]));
  const rows = h("tbody");
  put(main, 
    h("h1", {}, "Lanes"),
    h("div", { class: "lanes" }, [...cards.values()].map((card) => card.element)),
    h("h2", { id: "recent" }, "Settled just now"),
    h("p", { class: "soft" }, "Waited: from the time in the command's id until it was settled."),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-labelledby": "recent" }, h("table", { id: "recent-commands" },
      h("thead", {}, h("tr", {}, ["Settled", "Lane", "Sequence", "Type", "Status", "Waited", "Actor", "Command"].map((each) =>
        h("th", { scope: "col", class: each === "Sequence" || each === "Waited" ? "number" : null }, each)))), rows)));
  let drawn = "";
  return listen(() => {
    for (const [lane, card] of cards) if (live.lanes[lane]) card.update(live.lanes[lane], live.points[lane] || []);
    const now = live.recent.map((each) => `${each.lane}${each.sequence}`).join();
    if (now === drawn && rows.children.length) return;
    drawn = now;
    rows.replaceChildren(...(live.recent.length ? live.recent.map(recentRow) :
      [h("tr", {}, h("td", { colspan: 8, class: "empty" }, "Nothing yet: what a lane settles while this page is open appears here."))]));
  });
}

export function recentRow(each) {
  return h("tr", {},
    h("td", { class: "nowrap" }, time(each.settled_at)), h("td", {}, each.lane), h("td", { class: "number" }, count(each.sequence)),
    h("td", { class: "kind" }, each.type), h("td", {}, badge(each.status)), h("td", { class: "number nowrap" }, ms(each.latency_ms)),
    h("td", {}, each.actor || "–"), h("td", {}, h("a", { class: "id", href: `#/commands/${encodeURIComponent(each.command_id)}` }, each.command_id)));
}

export function laneCard({ name, operates }, { isWhole = false } = {}) {
  const state = badge("…", "");
  const why = h("div", { class: "why", hidden: true });
  const big = facts({ backlog: "Backlog", oldest: "Oldest waits", rate: "Settled", p95: "95 % within" });
  const small = facts({
    sequence: "Sequence", epoch: "Epoch", dead: "Dead letters", parked: "Parked", outbox: "Outbox", timers: "Timers",
    p50: "50 % within", p99: "99 % within", settled: "Last settled",
  });
  const active = h("dd");
  const calls = h("dd", { "data-fact": "effects" });
  const outside = h("div", { class: "wide", hidden: true }, h("dt", {}, "Calls to the outside"), calls);
  const toForget = h("dd", { "data-fact": "forgets" });
  const forgets = h("div", { class: "wide", hidden: true }, h("dt", {}, "Asked to be forgotten, not done yet"), toForget);
  const toMove = h("dd", { "data-fact": "move" });
  const move = h("div", { class: "wide", hidden: true }, h("dt", {}, "Move to another database"), toMove);
  const backlog = chart("Backlog", 1, count);
  const rate = chart("Settled/s", 2, (value) => count(Math.round(value * 10) / 10));
  const latency = chart("95 % within", 3, ms);
  const toggle = h("button", {}, "Pause");
  const element = h("article", { class: "card", "aria-label": `Lane ${name}`, "data-lane": name },
    h("div", { class: "head" }, h("h2", {}, h("a", { class: "name", href: `#/lanes/${encodeURIComponent(name)}` }, name)), state, operates ? h("div", { class: "acts" }, toggle,
      h("button", { onclick: () => drain(name) }, "Drain"), h("button", { onclick: () => cancel(name) }, "Cancel…")) : null),
    why,
    h("dl", { class: "big" }, big.elements),
    h("div", { class: isWhole ? "charts large" : "charts" }, backlog.element, rate.element, latency.element),
    h("dl", { class: "facts" }, small.elements, h("div", { class: "wide" }, h("dt", {}, "Coordinators"), active), outside, forgets, move),
  );
  let isPaused = false;
  let saidWhy = "";
  let saidActive = "";
  let saidCalls = "";
  toggle.addEventListener("click", () => (isPaused ? resume(name) : pause(name)));
  return {
    element,
    update(view, points) {
      const status = view.status;
      isPaused = Boolean(status.is_paused);
      setText(toggle, isPaused ? "Resume" : "Pause");
      setText(state, view.state);
      state.className = `badge ${view.state}`;
      element.dataset.state = view.state;
      const reasons = [...new Set([view.why, ...status.errors, view.full, view.effects && view.effects.why].filter(Boolean))];
      if (saidWhy !== reasons.join("\n")) {
        saidWhy = reasons.join("\n");
        why.replaceChildren(reasons.length === 1 ? h("span", {}, reasons[0]) : h("ul", {}, reasons.map((each) => h("li", {}, each))));
        why.hidden = !reasons.length;
      }
      const isHeld = view.full || (view.effects && view.effects.why && view.effects.state !== "unknown");
      why.className = `why ${isHeld ? "suspended" : view.state}`;
      const waitingForgets = status.forgets || [];
      forgets.hidden = !waitingForgets.length;
      setText(toForget, waitingForgets.map((each) => `${ago(each.asked_at)}: ${each.where}`).join("; "));
      move.hidden = !view.move || view.state === "moved";
      setText(toMove, view.move || "");
      const effects = view.effects;
      outside.hidden = !effects;
      if (effects && saidCalls !== JSON.stringify(effects)) {
        saidCalls = JSON.stringify(effects);
        const held = effects.under_way === null ? "" : `, ${count(effects.under_way)} under way`;
        const oldest = effects.oldest_s ? `, the oldest for ${seconds(effects.oldest_s)}` : "";
        calls.replaceChildren(badge(effects.state.replace("_", " "), effects.state.replace("_", "")), ` ${count(effects.waiting)} waiting${held}${oldest}`);
      }
      const holdsMore = isPaused && view.is_least && status.consumers;
      big.set("backlog", view.backlog === null || (holdsMore && view.backlog === 0) ? "–" : `${count(view.backlog)}${holdsMore ? "+" : ""}`);
      big.set("oldest", view.oldest_s === null ? "–" : `≥ ${seconds(view.oldest_s)}`);
      big.set("rate", status.rate === null ? "–" : `${count(status.rate)}/s`);
      big.set("p95", view.latency ? ms(view.latency.p95_ms) : "–");
      small.set("sequence", count(status.sequence));
      small.set("epoch", count(status.epoch));
      small.link("dead", count(status.dead_letters) + (status.dead_in_broker ? ` (+${count(status.dead_in_broker)})` : ""),
        status.dead_letters ? `#/letters?lane=${encodeURIComponent(name)}` : null);
      small.link("parked", status.parked_keys ? `${count(status.parked)} for ${plural(status.parked_keys, "key")}` : count(status.parked),
        status.parked_keys ? `#/parked?lane=${encodeURIComponent(name)}` : null);
      small.set("outbox", status.outbox === null ? "–" : status.outbox.length
        ? status.outbox.map((each) => `${count(each.entries)} for ${each.target}, ${ago(each.oldest_at)}`).join("; ") : "0");
      small.set("timers", status.timers === null ? "–" : status.timers ? `${count(status.timers)}, next ${String(status.next_timer_at).slice(11, 19)}` : "0");
      small.set("p50", view.latency ? ms(view.latency.p50_ms) : "–");
      small.set("p99", view.latency ? ms(view.latency.p99_ms) : "–");
      small.set("settled", ago(status.last_settled_at));
      const lines = coordinators(view);
      if (saidActive !== JSON.stringify(lines)) {
        saidActive = JSON.stringify(lines);
        active.replaceChildren(...lines.map(([kind, text, since]) => h("div", {}, badge(kind), " ", shown(text), since ? " " : null, since ? h("span", { class: "at-once" }, since) : null)));
      }
      backlog.update(points);
      rate.update(points);
      latency.update(points);
    },
  };
}

export function coordinators({ status, processes }) {
  const since = status.taken_at ? `since ${String(status.taken_at).replace("T", " ").slice(0, 16)}Z` : "";
  const holder = status.holder ? [["active", status.holder, since]] : [];
  processes = processes.filter((each) => !each.is_worker);
  if (!processes.length) return holder.length ? holder : [["none", "none has ever taken this lane"]];
  const others = processes.filter((each) => each.state !== "active").map((each) => [each.state, each.reason ? `${each.url}: ${each.reason}` : each.url]);
  const isHeld = processes.some((each) => each.state === "active" && each.epoch === status.epoch);
  return [...(isHeld ? holder : holder.map(([, text, at]) => [status.is_paused ? "paused" : "last", text, at])), ...others];
}

function facts(names) {
  const values = Object.fromEntries(Object.keys(names).map((key) => [key, h("dd", { "data-fact": key }, "–")]));
  return {
    elements: Object.entries(names).map(([key, title]) => h("div", {}, h("dt", {}, title), values[key])),
    set: (key, text) => setText(values[key], text),
    link(key, text, href) {
      const inner = values[key].querySelector("a");
      if (!href) return setText(values[key], text);
      if (inner) return setText(inner, text);
      values[key].replaceChildren(h("a", { href }, text));
    },
  };
}
