// The worklist: always as the server has it now, without a page being loaded again.
import { api, Problem } from "./api.js";
import { bdi, h, time } from "./dom.js";
import { t } from "./texts.js";

const LOOK_MS = 3000;
const PAGE = 100;
const OPEN = ["registered", "drafting", "drafted", "in-review", "failed"];
const GROUPS = {
  open: OPEN,
  drafted: ["drafted"],
  review: ["in-review"],
  waiting: ["registered", "drafting", "failed"],
  signed: ["signed", "amended", "corrected", "appended"],
  all: null,
};

class Worklist {
  constructor(root) {
    this.root = root;
    this.group = "open";
    this.found = null;
    this.modality = "";
    this.rows = root.querySelector("tbody");
    this.message = root.querySelector("#message");
    this.search = root.querySelector("#search");
    root.querySelector("#filters").replaceChildren(...this.#filters());
    root.querySelector("#modality").addEventListener("change", (event) => {
      this.modality = event.target.value;
      this.#draw();
    });
    root.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#find();
    });
    this.search.addEventListener("input", () => {
      if (!this.search.value.trim() && this.found) this.#forget();
    });
    document.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("visibilitychange", () => this.look());
    setInterval(() => this.look(), LOOK_MS);
    this.look();
  }

  #filters() {
    this.chips = Object.keys(GROUPS).map((name) =>
      h(
        "button",
        { type: "button", "aria-pressed": String(name === this.group), "data-group": name, onclick: () => this.#choose(name) },
        t(`list.${name}`),
        h("span", { class: "count" }),
      ),
    );
    return this.chips;
  }

  #choose(name) {
    this.group = name;
    this.tag = null;
    this.found = null;
    for (const chip of this.chips) chip.setAttribute("aria-pressed", String(chip.dataset.group === name));
    return this.look();
  }

  async look() {
    if (document.hidden || this.found || this.busy) return;
    this.busy = true;
    const statuses = GROUPS[this.group];
    const query = new URLSearchParams({ limit: PAGE, ...(statuses ? { status: statuses.join(",") } : {}) });
    try {
      const answer = await api.worklist(query, this.tag);
      this.tag = answer.tag;
      if (answer.body) this.page = answer.body;
      this.#draw();
      this.message.textContent = t("list.live");
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.message.textContent = problem.status === 401 ? t("problem.login") : t("problem.away");
    } finally {
      this.busy = false;
    }
  }

  /** Accession number or patient number: identifiers travel in the body of a request and in no address. */
  async #find() {
    const words = this.search.value.trim();
    if (!words) return this.#forget();
    const asked = ["accession_number", "patient_identifier"].map((key) => api.search({ [key]: [words], limit: PAGE }));
    try {
      const answers = await Promise.all(asked);
      const rows = new Map(answers.flatMap((answer) => answer.body.reports).map((row) => [row.id, row]));
      this.found = { ...answers[0].body, reports: [...rows.values()], total: rows.size };
      this.#draw();
      this.message.textContent = t("list.found", { count: rows.size });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.message.textContent = problem.message;
    }
    return undefined;
  }

  #forget() {
    this.found = null;
    this.tag = null;
    this.search.value = "";
    return this.look();
  }

  #draw() {
    const page = this.found ?? this.page;
    const focused = document.activeElement?.closest("tr")?.dataset.id;
    const rows = page.reports.filter((row) => !this.modality || row.order.modality === this.modality);
    this.rows.replaceChildren(...rows.map((row) => rowOf(row)));
    this.root.querySelector("#empty").hidden = rows.length > 0;
    if (focused) this.rows.querySelector(`tr[data-id="${CSS.escape(focused)}"] a`)?.focus();
    this.#counts(page);
    const select = this.root.querySelector("#modality");
    const known = new Set([...select.options].map((option) => option.value));
    for (const row of page.reports) {
      const { modality } = row.order;
      if (modality && !known.has(modality)) select.append(h("option", { value: modality }, modality));
      known.add(modality);
    }
  }

  #counts(page) {
    if (!page.counts) return;
    for (const chip of this.chips) {
      const statuses = GROUPS[chip.dataset.group];
      const sum = Object.entries(page.counts).reduce((all, [status, count]) => all + (!statuses || statuses.includes(status) ? count : 0), 0);
      chip.querySelector(".count").textContent = ` ${sum}`;
    }
  }

  #key(event) {
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "Escape" && typing) {
      event.target.blur();
      if (event.target === this.search) this.#forget();
      return;
    }
    if (typing || event.ctrlKey || event.altKey || event.metaKey) return;
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (step) {
      const links = [...this.rows.querySelectorAll("a")];
      const at = links.indexOf(document.activeElement);
      links[Math.min(Math.max(at + step, 0), links.length - 1)]?.focus();
    } else if (event.key === "/") this.search.focus();
    else if (/^[1-6]$/.test(event.key)) this.#choose(Object.keys(GROUPS)[event.key - 1]);
    else return;
    event.preventDefault();
  }
}

function rowOf(row) {
  const { order } = row;
  const { patient } = order;
  return h(
    "tr",
    { "data-id": row.id, class: `priority-${order.priority}` },
    h("td", {}, h("span", { class: `priority ${order.priority}` }, t(`priority.${order.priority}`))),
    h("td", {}, h("a", { href: `/reports/${encodeURIComponent(row.id)}` }, bdi(order.procedure.text ?? order.procedure.code ?? t("list.procedure")))),
    h("td", {}, order.modality ?? "–"),
    h("td", {}, bdi(patient.name ?? patient.identifier), h("small", {}, ` ${age(patient.birth_date)} ${t(`sex.${patient.sex ?? "unknown"}`)}`)),
    h("td", {}, bdi(order.accession_number ?? "–")),
    h("td", {}, h("span", { class: `state state-${row.status}` }, t(`status.${row.status}`))),
    h("td", {}, row.opened_by ? bdi(row.opened_by.name) : ""),
    h("td", { class: "number" }, time(row.created_at, since(row.created_at))),
  );
}

/** How long ago, in the two largest units that say something. */
export function since(moment, now = Date.now()) {
  const minutes = Math.max(0, Math.floor((now - Date.parse(moment)) / 60_000));
  if (minutes < 60) return t("since.minutes", { minutes });
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? t("since.hours", { hours, minutes: minutes % 60 }) : t("since.days", { days: Math.floor(hours / 24) });
}

function age(day) {
  if (!day) return "";
  const born = new Date(day);
  const now = new Date();
  const had = now.getMonth() > born.getMonth() || (now.getMonth() === born.getMonth() && now.getDate() >= born.getDate());
  return t("age", { years: now.getFullYear() - born.getFullYear() - (had ? 0 : 1) });
}

new Worklist(document.querySelector("#worklist"));
