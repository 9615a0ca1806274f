"use strict";
// Shows openapi.json of this server, and sends requests to it. Every text is put in as text, never as markup.

const METHODS = ["get", "put", "post", "delete", "head", "patch"];

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function resolve(spec, schema, depth = 0) {
  if (!schema || depth > 8) return {};
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return resolve(spec, spec.components.schemas[name], depth + 1);
  }
  return schema;
}

// A document of the shape that a schema describes.
function example(spec, schema, depth = 0) {
  const found = resolve(spec, schema, depth);
  const type = Array.isArray(found.type) ? found.type[0] : found.type;
  if (found.oneOf) return example(spec, found.oneOf[found.oneOf.length - 1], depth + 1);
  if (found.enum) return found.enum[0];
  if (type === "array") return [example(spec, found.items, depth + 1)];
  if (type === "integer" || type === "number") return found.minimum || 0;
  if (type === "boolean") return true;
  if (type === "string") return "string";
  const fields = Object.entries(found.properties || {});
  return Object.fromEntries(fields.map(([name, field]) => [name, example(spec, field, depth + 1)]));
}

function body(spec, operation) {
  const content = operation.requestBody && operation.requestBody.content;
  if (!content) return null;
  const [type, media] = Object.entries(content)[0];
  if (type === "application/json") {
    const area = element("textarea");
    area.value = JSON.stringify(example(spec, media.schema), null, 2);
    return { node: area, read: () => area.value };
  }
  const file = element("input", { type: "file" });
  const read = () => {
    if (type !== "multipart/form-data") return file.files[0];
    const form = new FormData();
    if (file.files[0]) form.append("file", file.files[0]);
    return form;
  };
  return { node: file, read };
}

function show(spec, path, method, operation) {
  const inputs = (operation.parameters || []).map((parameter) => ({
    parameter,
    node: element("input", { "aria-label": parameter.name }),
  }));
  const rows = inputs.map(({ parameter, node }) =>
    element(
      "tr",
      {},
      element("td", {}, element("code", {}, parameter.name), parameter.required ? " *" : ""),
      element("td", {}, parameter.in),
      element("td", {}, node, parameter.description || ""),
    ),
  );
  const sent = body(spec, operation);
  const answers = Object.entries(operation.responses || {}).map(([status, answer]) => {
    const content = answer.content && answer.content["application/json"];
    const shape = content ? JSON.stringify(example(spec, content.schema)) : "";
    return element("tr", {}, element("td", {}, status), element("td", {}, element("code", {}, shape)));
  });
  const output = element("pre", { hidden: "" });
  const button = element("button", { type: "button" }, "Send");
  button.addEventListener("click", async () => {
    let target = path;
    const query = new URLSearchParams();
    const headers = {};
    for (const { parameter, node } of inputs) {
      if (node.value === "") continue;
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(node.value));
      else if (parameter.in === "query") query.append(parameter.name, node.value);
      else headers[parameter.name] = node.value;
    }
    const suffix = query.toString() ? `?${query}` : "";
    output.hidden = false;
    try {
      const options = { method: method.toUpperCase(), headers, body: sent ? sent.read() : undefined };
      const answer = await fetch(target + suffix, options);
      const text = await answer.text();
      output.textContent = `${answer.status} ${answer.statusText}\n\n${text.slice(0, 65536)}`;
    } catch (error) {
      output.textContent = String(error);
    }
  });
  const table = rows.length ? element("table", {}, ...rows) : "";
  const inner = element("div", {}, table, sent ? sent.node : "", button, output);
  inner.append(element("h3", {}, "Answers"), element("table", {}, ...answers));
  const summary = element(
    "summary",
    {},
    element("b", { class: method }, method.toUpperCase()),
    element("code", {}, path),
    element("span", {}, operation.summary || ""),
  );
  return element("details", {}, summary, inner);
}

async function main() {
  const spec = await (await fetch("openapi.json")).json();
  document.getElementById("title").textContent = spec.info.title;
  document.getElementById("description").textContent = spec.info.description || "";
  const main = document.getElementById("operations");
  const groups = new Map();
  for (const [path, operations] of Object.entries(spec.paths)) {
    for (const method of METHODS.filter((name) => operations[name])) {
      const operation = operations[method];
      const group = (operation.tags || [""])[0];
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(show(spec, path, method, operation));
    }
  }
  for (const [group, shown] of groups) main.append(element("h2", {}, group), ...shown);
}

main();
