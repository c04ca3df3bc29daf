// Which page is shown, and to whom.

import { session, signIn, signOut } from "./api.js";
import { commandPage, commandsPage } from "./commands.js";
import { count, h, problem } from "./dom.js";
import { findForm, findPage } from "./find.js";
import { lanesPage } from "./lanes.js";
import { lanePage } from "./lane.js";
import { letterPage, lettersPage } from "./letters.js";
import { listen, live, start, stop } from "./live.js";
import { actsPage } from "./operate.js";
import { parkedPage } from "./parked.js";

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const who = document.getElementById("who");
const finder = document.getElementById("find");
let viewer = null;
let leave = null;
let isFirst = true;

const PAGES = [
  [/^$/, "Lanes", lanesPage],
  [/^lanes\/([^/]+)$/, "Lane", (place, context, [name]) => lanePage(place, { ...context, name })],
  [/^find$/, "Find", findPage],
  [/^letters$/, "Dead letters", lettersPage],
  [/^letters\/([^/]+)\/([1-9][0-9]{0,15})$/, "Dead letter", (place, context, [lane, number]) => letterPage(place, { ...context, lane, number })],
  [/^commands$/, "Commands", commandsPage],
  [/^commands\/([^/]+)$/, "Command", (place, context, [id]) => commandPage(place, { ...context, id })],
  [/^parked$/, "Parked keys", parkedPage],
  [/^acts$/, "Acts", actsPage],
];

function show() {
  if (!viewer) return;
  if (leave) leave();
  leave = null;
  const [path, text] = location.hash.replace(/^#\/?/, "").split("?");
  for (const link of nav.querySelectorAll("a")) {
    const own = link.getAttribute("href").slice(2);
    if (own === path || (own ? path.startsWith(`${own}/`) : path.startsWith("lanes/"))) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  // A page that is still loading writes into its own place, which may be gone by then.
  const place = h("div");
  main.replaceChildren(place);
  const what = new URLSearchParams(text || "").get("what") || "";
  finder.replaceChildren(findForm(path === "find" ? what : ""));
  const context = { lanes: viewer.lanes, query: new URLSearchParams(text || ""), dead: (lane) => live.lanes[lane]?.status.dead_letters };
  for (const [pattern, title, page] of PAGES) {
    const found = pattern.exec(path);
    if (!found) continue;
    document.title = `${title} · Operations`;
    const ends = page(place, context, found.slice(1).map(decoded));
    if (typeof ends === "function") leave = ends;
    // A screen reader begins with the new page; the first one is where it is already.
    if (!isFirst) main.focus({ preventScroll: true });
    isFirst = false;
    return;
  }
  place.append(h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/" }, "The lanes")));
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

async function begin() {
  try {
    viewer = await session();
  } catch (error) {
    viewer = null;
    stop();
    if (error.status === 401) return askForKey();
    main.replaceChildren(h("h1", {}, "Operations"), problem(error), h("button", { onclick: begin }, "Try again"));
    return;
  }
  nav.hidden = finder.hidden = false;
  who.replaceChildren(h("span", {}, viewer.author), viewer.asks ? h("button", { class: "plain", onclick: async () => { await signOut(); location.reload(); } }, "Sign out") : "");
  start();
  show();
}

function askForKey(failure = null) {
  nav.hidden = finder.hidden = true;
  who.replaceChildren();
  document.title = "Sign in · Operations";
  const key = h("input", { type: "password", name: "key", required: true, autocomplete: "off", "aria-describedby": "hint" });
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    try { await signIn(key.value); } catch (error) { return askForKey(error); }
    begin();
  } },
    h("label", {}, "API key or token", key),
    h("p", { class: "soft", id: "hint" }, "One with the scope operator may act, and one with viewer may look: coordinator keys create LANE --subject ada --scope operator"),
    failure ? problem(failure) : null,
    h("button", { class: "main" }, "Sign in"));
  main.replaceChildren(h("div", { class: "card signin" }, h("h1", {}, "Sign in"), form));
  key.focus();
}

// A link with a key in its fragment, which no server sees, signs in: `coordinator dev` prints one. Nobody who is signed in
// becomes somebody else by it: what he does would be recorded as done by whoever has sent him the link.
async function signInByLink() {
  const found = /^#key=([^&]+)$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, "", "/");
  try { await signIn(decoded(found[1]), { isLink: true }); } catch (error) { return error; }
  return null;
}

document.addEventListener("signed-out", () => { if (viewer) { viewer = null; stop(); askForKey(); } });
document.addEventListener("stream-ended", () => setTimeout(() => { if (viewer) begin(); }, 3000));
window.addEventListener("hashchange", async () => {
  if (location.hash.startsWith("#key=")) { await signInByLink(); return begin(); }
  show();
});
listen(() => {
  const dead = Object.values(live.lanes).reduce((sum, each) => sum + (each.status.dead_letters || 0), 0);
  const mark = document.getElementById("dead-count");
  mark.textContent = count(dead);
  mark.hidden = !dead;
});
const failure = await signInByLink();
if (failure) askForKey(failure); else begin();
