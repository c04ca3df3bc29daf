// Requests to this gateway. Whatever changes something carries the session's mark.

let mark = "";

export class Refused extends Error {
  constructor(status, body) {
    super(body.detail || `the gateway answered ${status}`);
    this.status = status;
    this.code = body.code;
  }
}

async function answer(response) {
  if (response.status === 204) return null;
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    if (response.status === 401 && body.code === "unauthenticated") document.dispatchEvent(new Event("signed-out"));
    throw new Refused(response.status, body);
  }
  return body;
}

async function ask(path, options = {}) {
  try {
    return await answer(await fetch(path, { credentials: "same-origin", ...options }));
  } catch (error) {
    if (error instanceof TypeError) throw new Error("the operations gateway does not answer");
    throw error;
  }
}

export function get(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(given).toString();
  return ask(text ? `${path}?${text}` : path);
}

export function post(path, body, { raw = false } = {}) {
  return ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "Operations-Mark": mark },
    body: raw ? body : JSON.stringify(body),
  });
}

export async function session() {
  const found = await get("/api/session");
  mark = found.mark;
  return found;
}

export const signIn = (key, { isLink = false } = {}) => post("/api/session", { key, is_link: isLink });
export const signOut = () => ask("/api/session", { method: "DELETE" });
export const ofLane = (lane, rest) => `/api/lanes/${encodeURIComponent(lane)}/${rest}`;
