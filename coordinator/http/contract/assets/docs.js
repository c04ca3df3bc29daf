// Reads the OpenAPI document of this gateway, shows its routes, and sends requests to them.
// Whatever comes from the document or an answer is put in as text, never as markup.

const METHODS = ["get", "post", "put", "patch", "delete"];
let key = "";
let api = null;

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute === "class") element.className = value;
    else element.setAttribute(attribute, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Code in backticks, and links to what a problem means; the rest is text as it is.
function prose(text) {
  const parts = [];
  const pattern = /\[`([^`\]]+)`\]\((\/problems\/[a-z_]+)\)|`([^`]+)`/g;
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    parts.push(text.slice(end, found.index));
    if (found[1]) parts.push(make("a", { href: found[2] }, make("code", {}, found[1])));
    else parts.push(make("code", {}, found[3]));
    end = found.index + found[0].length;
  }
  parts.push(text.slice(end));
  return parts;
}

function paragraphs(text) {
  return (text ?? "").split(/\n\n+/).filter(Boolean).map((each) => make("p", {}, ...prose(each)));
}

function resolved(value) {
  if (!value || !value.$ref) return value ?? {};
  return value.$ref.slice(2).split("/").reduce((found, name) => found?.[name], api) ?? {};
}

// A schema in words, a line each; deeper ones as they stand.
function words(schema) {
  const own = resolved(schema);
  if (schema?.$ref) return schema.$ref.split("/").pop();
  if (own.const !== undefined) return JSON.stringify(own.const);
  if (own.enum) return own.enum.map((each) => JSON.stringify(each)).join(" | ");
  if (own.anyOf) return own.anyOf.map(words).join(" | ");
  if (own.type === "array") return `array of ${words(own.items ?? {})}`;
  const limits = [["minimum", "≥"], ["maximum", "≤"], ["minLength", "length ≥"], ["maxLength", "length ≤"]]
    .filter(([name]) => own[name] !== undefined)
    .map(([name, sign]) => `${sign} ${own[name]}`);
  return [own.format ?? own.type ?? "any", ...limits].join(", ");
}

function table(heads, rows) {
  const head = make("thead", {}, make("tr", {}, ...heads.map((each) => make("th", { scope: "col" }, each))));
  const body = make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, ...cell)))));
  return make("div", { class: "scroll", tabindex: "0" }, make("table", {}, head, body));
}

function fieldsOf(schema) {
  const own = resolved(schema);
  const required = new Set(own.required ?? []);
  return Object.entries(own.properties ?? {}).map(([name, each]) => [
    [make("code", {}, name)],
    [required.has(name) ? "needed" : "if wanted"],
    [words(each)],
    prose(resolved(each).description ?? ""),
  ]);
}

function parameterRows(parameters) {
  return parameters.map((each) => [
    [each.in],
    [make("code", {}, each.name)],
    [words(each.schema)],
    prose(each.description ?? ""),
  ]);
}

function answerRows(responses) {
  return Object.entries(responses).map(([status, named]) => {
    const response = resolved(named);
    const content = Object.entries(response.content ?? {});
    const isProblem = content.some(([type]) => type === "application/problem+json");
    const shown = isProblem ? "problem" : content.map(([type, each]) => `${type}: ${words(each.schema)}`).join("; ");
    return [[status], prose(response.description), [shown || "no body"]];
  });
}

function tryForm(path, method, operation, parameters) {
  const inputs = [];
  const form = make("form", { class: "try" });
  const number = tryForm.number = (tryForm.number ?? 0) + 1;
  for (const parameter of parameters) {
    const id = `try-${number}-${inputs.length}`;
    const input = make("input", { id, autocomplete: "off", spellcheck: "false" });
    if (parameter.required) input.required = true;
    inputs.push({ parameter, input });
    form.append(make("label", { for: id }, `${parameter.name} (${parameter.in})`, input));
  }
  const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  let body = null;
  if (type) {
    const id = `try-${number}-body`;
    body = make("textarea", { id, spellcheck: "false" });
    body.value = content.example === undefined ? "" : JSON.stringify(content.example, null, 2);
    form.append(make("label", { for: id }, `body (${type})`, body));
  }
  const answer = make("div", { "aria-live": "polite" });
  form.append(make("p", {}, make("button", { type: "submit" }, `Send ${method.toUpperCase()}`)), answer);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(path, method, inputs, type, body, answer);
  });
  return form;
}

async function send(path, method, inputs, type, body, answer) {
  const headers = new Headers();
  const query = new URLSearchParams();
  let address = path;
  for (const { parameter, input } of inputs) {
    if (parameter.in === "path") address = address.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (input.value === "") continue;
    else if (parameter.in === "query") query.set(parameter.name, input.value);
    else headers.set(parameter.name, input.value);
  }
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const options = { method: method.toUpperCase(), headers, redirect: "manual", cache: "no-store" };
  if (body !== null && body.value.trim() !== "") {
    headers.set("Content-Type", type);
    options.body = body.value;
  }
  answer.replaceChildren("Sent…");
  try {
    const began = performance.now();
    const response = await fetch(address + (query.size ? `?${query}` : ""), options);
    const text = await response.text();
    const ms = Math.round(performance.now() - began);
    const line = make("p", { class: response.ok ? "good" : "bad" }, `${response.status} ${response.statusText}, ${ms} ms`);
    const names = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    answer.replaceChildren(line, make("pre", { tabindex: "0" }, names), make("pre", { tabindex: "0" }, pretty(text)));
  } catch (error) {
    answer.replaceChildren(make("p", { class: "bad" }, `No answer: ${error.message}`));
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function route(path, method, operation) {
  const inside = make("div", { class: "inside" });
  const summary = make(
    "summary",
    {},
    make("span", { class: "method" }, method.toUpperCase()),
    make("span", { class: "path" }, path),
    make("span", { class: "about" }, ...prose(operation.summary ?? "")),
  );
  const made = make("details", { class: "route", id: operation.operationId }, summary, inside);
  // A large service has hundreds of routes: what is inside is made when somebody looks.
  made.addEventListener("toggle", () => {
    if (made.open && !inside.hasChildNodes()) inside.append(...contentOf(path, method, operation));
  });
  made.dataset.words = `${method} ${path} ${operation.summary ?? ""} ${operation.operationId}`.toLowerCase();
  return made;
}

function contentOf(path, method, operation) {
  const parameters = (operation.parameters ?? []).map(resolved);
  const parts = [...paragraphs(operation.description)];
  if (parameters.length) {
    parts.push(make("h3", {}, "Parameters"), table(["in", "name", "type", ""], parameterRows(parameters)));
  }
  const [, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  if (content) {
    const rows = fieldsOf(content.schema);
    parts.push(make("h3", {}, operation.requestBody.required ? "Body" : "Body, which may be left out"));
    parts.push(rows.length ? table(["field", "", "type", ""], rows) : make("p", {}, words(content.schema)));
  }
  parts.push(make("h3", {}, "Answers"), table(["status", "meaning", "content"], answerRows(operation.responses)));
  parts.push(make("h3", {}, "Try it"), tryForm(path, method, operation, parameters));
  return parts;
}

function types() {
  const rows = Object.entries(api.components?.schemas ?? {}).map(([name, schema]) =>
    make(
      "details",
      { class: "route", id: `type-${name}` },
      make("summary", {}, make("span", { class: "path" }, name)),
      make(
        "div",
        { class: "inside" },
        ...paragraphs(schema.description),
        make("pre", { tabindex: "0" }, JSON.stringify(schema, null, 2)),
      ),
    ),
  );
  return [make("h2", {}, "Types"), ...rows];
}

function show() {
  document.title = `${api.info.title}: HTTP API`;
  document.getElementById("title").textContent = `${api.info.title}: HTTP API`;
  // Of a gateway that takes no key in a header, or asks for none.
  document.getElementById("access").hidden = !api.components?.securitySchemes?.bearer;
  document.getElementById("about").replaceChildren(...prose(api.info.description ?? ""));
  const byTag = new Map();
  let number = 0;
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((each) => methods[each])) {
      const tag = methods[method].tags?.[0] ?? "";
      byTag.set(tag, [...(byTag.get(tag) ?? []), route(path, method, methods[method])]);
      number += 1;
    }
  }
  const parts = [...byTag].flatMap(([tag, found]) => [make("h2", {}, tag), ...found]);
  document.getElementById("routes").replaceChildren(...parts, ...types());
  state(`${number} routes`);
  find();
}

function find() {
  const asked = document.getElementById("find").value.trim().toLowerCase();
  for (const each of document.querySelectorAll("details.route[data-words]")) {
    each.hidden = !each.dataset.words.includes(asked);
  }
}

function state(text, isBad = false) {
  const line = document.getElementById("state");
  line.textContent = text;
  line.className = isBad ? "bad" : "";
}

async function read() {
  try {
    const response = await fetch("/openapi.json", { headers: key ? { Authorization: `Bearer ${key}` } : {}, cache: "no-cache" });
    if (response.status === 401) {
      state("This gateway shows its routes to those whom it knows: give a key or a token.", true);
      return;
    }
    if (!response.ok) throw new Error(`the gateway answers ${response.status}`);
    api = await response.json();
    show();
  } catch (error) {
    state(`The routes cannot be read: ${error.message}`, true);
  }
}

document.getElementById("access").addEventListener("submit", (event) => {
  event.preventDefault();
  key = document.getElementById("key").value.trim();
  read();
});
document.getElementById("find").addEventListener("input", find);
read();
