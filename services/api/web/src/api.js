// The workstation API. Identifiers travel in bodies; answers that have a version come with it.

const PREFIX = "/api/v1";

/** What the server did not do, in its own words: `status`, `code`, and a message that holds no patient data. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || String(status));
    this.status = status;
    this.code = body.code || "unreachable";
    this.place = body.place;
  }
}

async function send(method, path, { body, match, known, passive } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (match !== undefined) headers["If-Match"] = match === "*" ? "*" : `"${match}"`;
  if (known) headers["If-None-Match"] = known;
  // What a page asks by itself keeps nobody's session awake.
  if (passive) headers["X-Inlay-Passive"] = "1";
  // Whoever signed in by the browser proves with it that this page, and no other, sends the change.
  const token = document.querySelector('meta[name="csrf-token"]')?.content;
  if (token && method !== "GET") headers["X-CSRF-Token"] = token;
  let answer;
  try {
    answer = await fetch(PREFIX + path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch {
    throw new Problem(0, {});
  }
  if (answer.status === 304) return { status: 304, tag: known };
  const isJson = (answer.headers.get("Content-Type") ?? "").includes("json");
  const data = isJson ? await answer.json() : {};
  if (!answer.ok) throw new Problem(answer.status, data);
  return { status: answer.status, tag: answer.headers.get("ETag"), body: data };
}

const enc = encodeURIComponent;
/** Of an earlier examination, by its key; of the report's own study without one. */
const priorPath = (prior) => (prior ? `/priors/${enc(prior)}` : "");
const report = (id, rest = "") => `/reports/${enc(id)}${rest}`;

export const api = {
  worklist: (query, known) => send("GET", `/reports?${query}`, { known, passive: true }),
  search: (body) => send("POST", "/reports/search", { body }),
  report: (id) => send("GET", report(id)),
  version: (id, version) => send("GET", report(id, `/versions/${version}`)),
  versions: (id) => send("GET", report(id, "/versions")),
  /** As `versions`, asked by the page itself: 304 while nothing is new. */
  watch: (id, known) => send("GET", report(id, "/versions"), { known, passive: true }),
  checks: (id) => send("GET", report(id, "/checks")),
  images: (id, prior) => send("GET", report(id, `${priorPath(prior)}/images`)),
  priors: (id) => send("GET", report(id, "/priors")),
  audit: (id, offset) => send("GET", report(id, `/audit?offset=${offset}&limit=200`)),
  open: (id, match) => send("POST", report(id, "/open"), { body: {}, match }),
  edit: (id, match, sections) => send("PUT", report(id, "/fragments"), { body: { sections }, match }),
  infill: (id, match, body) => send("POST", report(id, "/infill"), { body, match }),
  retry: (id, match) => send("POST", report(id, "/retry"), { body: {}, match }),
  sign: (id, match) => send("POST", report(id, "/sign"), { body: {}, match }),
  amend: (id, match, body) => send("POST", report(id, "/amend"), { body, match }),
  retract: (id, match, reason) => send("POST", report(id, "/retract"), { body: { reason }, match }),
  job: (id) => send("GET", `/jobs/${enc(id)}`),
  canvases: (id) => send("GET", `/jobs/${enc(id)}/canvases`),
  cancel: (id) => send("DELETE", `/jobs/${enc(id)}`, { match: "*" }),
  events: (id) => new EventSource(`${PREFIX}/jobs/${enc(id)}/events`),
  imageUrl(id, prior, query) {
    const words = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
    return `${PREFIX}${report(id, `${priorPath(prior)}/image`)}?${new URLSearchParams(words)}`;
  },
};
