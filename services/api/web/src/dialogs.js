// Dialogs: each is a promise of what was chosen. The browser keeps the focus inside and gives it back.
import { bdi, button, h } from "./dom.js";
import { diffWords } from "./diff.js";
import { allSections } from "./sections.js";
import { t } from "./texts.js";

/** Show a dialog; `fill(close)` gives its content. Resolves with what `close` was called with, null for Escape. */
export function dialog(title, fill, name = "") {
  return new Promise((resolve) => {
    const element = h("dialog", { class: name, "aria-labelledby": "dialog-title" });
    let answer = null;
    const close = (value) => {
      answer = value;
      element.close();
    };
    element.append(h("h2", { id: "dialog-title" }, title), ...fill(close));
    element.addEventListener("close", () => {
      element.remove();
      resolve(answer);
    });
    document.body.append(element);
    element.showModal();
  });
}

/** Two texts as one, words that went and words that came marked by more than colour. */
export function compared(before, after) {
  const kinds = { same: null, gone: "del", new: "ins" };
  return diffWords(before, after).map(({ kind, text }) => (kinds[kind] ? h(kinds[kind], {}, text) : text));
}

export function comparedSections(before, after) {
  const names = allSections(new Set([...after, ...before].map((section) => section.name)));
  const text = (sections, name) => sections.find((section) => section.name === name)?.text ?? "";
  const shown = names
    .filter((name) => text(before, name) || text(after, name))
    .map((name) => {
      const same = text(before, name) === text(after, name);
      return h(
        "section",
        { class: same ? "same" : "" },
        h("h3", {}, t(`section.${name}`), same ? h("small", {}, ` ${t("compare.same")}`) : null),
        h("div", { class: "text", dir: "auto" }, compared(text(before, name), text(after, name))),
      );
    });
  return h("div", { class: "compared", tabindex: "0", role: "region", "aria-label": t("compare.label") }, shown);
}

export function sectionTexts(report) {
  return report.sections.map(({ name, fragments }) => ({ name, text: fragments.map((one) => one.text).join("") }));
}

export function conflictDialog(mine, theirs) {
  const by = theirs.author.name;
  return dialog(
    t("conflict.title"),
    (close) => [
      h("p", {}, t("conflict.text", { name: by, version: theirs.version })),
      h("p", { class: "legend" }, h("del", {}, t("conflict.legend.theirs", { name: by })), " ", h("ins", {}, t("conflict.legend.mine"))),
      comparedSections(sectionTexts(theirs), mine),
      h(
        "div",
        { class: "choices" },
        button(t("conflict.take"), null, () => close(false)),
        button(t("conflict.keep"), null, () => close(true), { class: "main" }),
      ),
    ],
    "wide",
  );
}

/** Whose report it is that is signed. */
function whose({ order, version }) {
  const { patient, procedure } = order;
  return h("p", {}, bdi(patient.name ?? patient.identifier), " · ", bdi(procedure.text ?? ""), " · ", t("report.version", { version }));
}

export function signDialog({ report, draft, checks, disputes, unread, gaps, user }) {
  const warns = [
    gaps ? t("sign.gaps", { count: gaps }) : null,
    unread.length ? t("sign.unread", { count: unread.length }) : null,
    ...disputes,
    ...checks.map((check) => `${t(`section.${check.section}`)}: ${check.message}`),
  ].filter(Boolean);
  return dialog(
    t("sign.title"),
    (close) => {
      const sign = button(t("sign.sign"), null, () => close(true), { class: "sign", disabled: true });
      const confirm = h("input", { type: "checkbox", autofocus: true, onchange: () => (sign.disabled = !confirm.checked) });
      return [
        whose(report),
        warns.length
          ? h("div", { class: "points", role: "note" }, h("strong", {}, t("sign.points", { count: warns.length })), h("ul", {}, warns.map((text) => h("li", {}, text))))
          : h("p", { class: "clear" }, t("sign.clear")),
        draft ? h("h3", {}, t("sign.difference")) : null,
        draft ? comparedSections(sectionTexts(draft), sectionTexts(report)) : null,
        h("label", { class: "confirm" }, confirm, " ", t("sign.confirm", { name: user })),
        h("div", { class: "choices" }, button(t("dialog.back"), null, () => close(null)), sign),
      ].filter(Boolean);
    },
    "wide",
  );
}

export function finishDialog(report, now, user) {
  return dialog(
    t("amend.title"),
    (close) => {
      const kind = h(
        "select",
        { id: "amend-kind", autofocus: true },
        ["amend", "correct", "append"].map((name) => h("option", { value: name }, t(`amend.${name}`))),
      );
      const reason = h("textarea", { id: "amend-reason", maxlength: "2000", rows: "2", required: true, dir: "auto" });
      const confirm = h("input", { type: "checkbox" });
      const sign = button(t("amend.sign"), null, () => close({ kind: kind.value, reason: reason.value }), { class: "sign", disabled: true });
      const judge = () => (sign.disabled = !confirm.checked || !reason.value.trim());
      confirm.addEventListener("change", judge);
      reason.addEventListener("input", judge);
      return [
        whose(report),
        h("h3", {}, t("amend.difference")),
        comparedSections(sectionTexts(report), now),
        h("p", {}, h("label", { for: "amend-kind" }, t("amend.kind")), " ", kind),
        h("p", {}, h("label", { for: "amend-reason" }, t("amend.reason")), reason),
        h("label", { class: "confirm" }, confirm, " ", t("sign.confirm", { name: user })),
        h("div", { class: "choices" }, button(t("dialog.back"), null, () => close(null)), sign),
      ];
    },
    "wide",
  );
}

export function retractDialog() {
  return dialog(t("retract.title"), (close) => {
    const reason = h("textarea", { id: "retract-reason", maxlength: "2000", rows: "2", dir: "auto" });
    const go = button(t("retract.do"), null, () => close(reason.value), { class: "danger", disabled: true });
    reason.addEventListener("input", () => (go.disabled = !reason.value.trim()));
    return [
      h("p", {}, t("retract.text")),
      h("p", {}, h("label", { for: "retract-reason" }, t("amend.reason")), reason),
      h("div", { class: "choices" }, button(t("dialog.back"), null, () => close(null)), go),
    ];
  });
}

const KEYS = [
  ["F2", "keys.fill"], ["Shift+F2", "keys.restyle"], ["Esc", "keys.cancel"], ["F3", "keys.lock"], ["F4", "keys.gap"], ["Alt+Backspace", "keys.remove"],
  ["Alt+↓ / Alt+↑", "keys.step"], ["Alt+. / Alt+,", "keys.alternatives"], ["F6", "keys.next"],
  ["Ctrl+Z / Ctrl+Y", "keys.undo"], ["F9", "keys.sign"], ["F1", "keys.help"],
];

export function keysDialog() {
  return dialog(t("keys.title"), (close) => [
    h("table", { class: "keys" }, h("tbody", {}, KEYS.map(([key, text]) => h("tr", {}, h("th", { scope: "row" }, h("kbd", {}, key)), h("td", {}, t(text)))))),
    h("p", {}, t("keys.image")),
    h("div", { class: "choices" }, button(t("dialog.close"), null, () => close(null), { autofocus: true })),
  ]);
}
