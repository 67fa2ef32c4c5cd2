// The image: zoom, pan, window, inversion and the views of the study, on pictures that the server has windowed.
import OpenSeadragon from "openseadragon";
import { api } from "./api.js";
import { button, h, sign } from "./dom.js";
import { t } from "./texts.js";

const MOST_PIXELS = 4096;
// A drag across this many pixels moves the window by its own width.
const DRAG_PIXELS = 400;

class Viewer {
  constructor(place, id, images) {
    this.place = place;
    this.id = id;
    this.images = images;
    // The report's own study, and the earlier examination that is shown in its place, if one is.
    this.own = images;
    this.prior = null;
    this.view = 0;
    this.invert = false;
    this.window = null;
    this.stage = h("div", { class: "stage" });
    this.marks = h("div", { class: "marks", "aria-hidden": "true" });
    this.scale = h("div", { class: "scale", "aria-hidden": "true" }, h("span", {}));
    this.facts = h("p", { class: "facts", id: "image-facts" });
    this.earlier = h("p", { class: "earlier", role: "status", hidden: true });
    place.replaceChildren(this.#tools(), h("div", { class: "frame" }, this.stage, this.marks, this.scale, this.earlier), this.facts);
    // OpenSeadragon adds a style sheet for touch screens unless there is one; the page's policy would refuse it.
    const stands = document.createElementNS("urn:inlay", "style");
    stands.setAttribute("data-openseadragon-mobile-css", "");
    document.head.append(stands);
    this.osd = OpenSeadragon({
      element: this.stage,
      drawer: "canvas",
      showNavigationControl: false,
      animationTime: 0.2,
      springStiffness: 12,
      maxZoomPixelRatio: 8,
      minZoomImageRatio: 0.8,
      visibilityRatio: 0.5,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      keyboardNavEnabled: true,
      crossOriginPolicy: false,
    });
    // The letters in OpenSeadragon's own shortcuts (f flips the image, r turns it) must not change what side is what.
    this.osd.addHandler("canvas-key", (event) => {
      const { key } = event.originalEvent;
      event.preventDefaultAction = !["+", "-", "=", "_", "0", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"].includes(key);
      if (key === "i") this.#toggleInvert();
    });
    for (const name of ["zoom", "pan", "open", "resize", "animation"]) this.osd.addHandler(name, () => this.#measure());
    this.osd.canvas.setAttribute("aria-label", t("image.label"));
    this.osd.canvas.setAttribute("aria-describedby", "image-facts");
    this.osd.canvas.setAttribute("role", "application");
    this.#windowDrag();
  }

  #tools() {
    const zoom = (by) => () => {
      this.osd.viewport.zoomBy(by).applyConstraints();
    };
    const move = (what) => () => this.#nudge(what);
    this.invertButton = button(t("image.invert"), null, () => this.#toggleInvert(), { "aria-pressed": "false" });
    this.views = h("select", { "aria-label": t("image.view"), onchange: (event) => this.show(Number(event.target.value)) });
    this.#listViews();
    this.studies = h("span", {}, button(t("image.earlier"), null, () => this.#listStudies()));
    const external = this.place.dataset.external
      ? h("a", { href: this.place.dataset.external, target: "_blank", rel: "noopener noreferrer", class: "button" }, t("image.external"))
      : null;
    return h(
      "div",
      { class: "tools", role: "toolbar", "aria-label": t("image.tools") },
      this.views,
      this.studies,
      button(sign("+", t("image.closer")), null, zoom(1.4), { title: t("image.closer") }),
      button(sign("−", t("image.further")), null, zoom(1 / 1.4), { title: t("image.further") }),
      button(t("image.fit"), null, () => this.osd.viewport.goHome()),
      h("span", { class: "split" }),
      button(sign("◐+", t("image.harder")), null, move([0, 0.8]), { title: t("image.harder") }),
      button(sign("◐−", t("image.softer")), null, move([0, 1.25]), { title: t("image.softer") }),
      button(sign("☀+", t("image.brighter")), null, move([-0.1, 1]), { title: t("image.brighter") }),
      button(sign("☀−", t("image.darker")), null, move([0.1, 1]), { title: t("image.darker") }),
      this.invertButton,
      button(t("image.reset"), null, () => this.#reset()),
      h("span", { class: "split" }),
      external,
    );
  }

  #listViews() {
    this.views.replaceChildren(...this.images.map((one, number) => h("option", { value: number }, viewName(one, number))));
    this.views.hidden = this.images.length < 2;
  }

  /** Earlier examinations to choose from, asked for when somebody wants one: whoever reads them is in the trail. */
  async #listStudies() {
    const answer = await api.priors(this.id).catch(() => null);
    const priors = answer?.body.priors.filter((prior) => prior.key) ?? [];
    if (!priors.length) {
      this.#say(t(answer ? "image.earlier.none" : "image.failed"));
      return;
    }
    const choice = h(
      "select",
      { "aria-label": t("image.study"), onchange: () => this.#choose(priors[choice.selectedIndex - 1] ?? null) },
      h("option", {}, t("image.own")),
      priors.map((prior) => h("option", {}, priorName(prior))),
    );
    this.studies.replaceChildren(choice);
    choice.focus();
  }

  /** Show another study, null for the report's own; where there is nothing of it to show, what is shown stays. */
  async #choose(prior) {
    const answer = prior ? await api.images(this.id, prior.key).catch(() => null) : { body: { images: this.own } };
    const images = answer?.body.images ?? [];
    if (!images.length) {
      this.studies.querySelector("select").selectedIndex = this.chosen ?? 0;
      this.#say(t(answer ? "image.earlier.away" : "image.failed", { study: priorName(prior) }));
      return;
    }
    this.chosen = this.studies.querySelector("select").selectedIndex;
    this.prior = prior;
    this.images = images;
    this.#listViews();
    this.show(0);
  }

  #say(text) {
    this.#describe();
    this.facts.textContent = text;
  }

  show(view) {
    this.view = view;
    this.window = null;
    return this.#load(true);
  }

  get about() {
    return this.images[this.view];
  }

  /** Fetch the picture with the window as it is now; the old one stays until the new one is there. */
  #load(home = false) {
    const query = { view: this.view, max_side: MOST_PIXELS, invert: this.invert };
    if (this.window) Object.assign(query, { center: this.window.center.toFixed(2), width: this.window.width.toFixed(2) });
    const bounds = this.osd.viewport?.getBounds();
    const old = this.osd.world.getItemAt(0);
    this.osd.addTiledImage({
      tileSource: { type: "image", url: api.imageUrl(this.id, this.prior?.key, query), buildPyramid: false },
      success: ({ item }) => {
        if (old) this.osd.world.removeItem(old);
        if (home || !old) this.osd.viewport.goHome(true);
        else this.osd.viewport.fitBounds(bounds, true);
        this.stage.style.filter = "";
        item.setCompositeOperation(null);
        this.#measure();
        this.place.dataset.ready = "true";
      },
      error: () => (this.facts.textContent = t("image.failed")),
    });
    this.#describe();
  }

  #describe() {
    const { about, window } = this;
    const shown = window ?? about.window;
    const size = about.spacing_mm ? t("image.size", { width: Math.round(about.columns * about.spacing_mm[1]), height: Math.round(about.rows * about.spacing_mm[0]) }) : t("image.unmeasured");
    const words = [
      viewName(about, this.view),
      t("image.pixels", { columns: about.columns, rows: about.rows }),
      size,
      shown ? t("image.window", { center: Math.round(shown.center), width: Math.round(shown.width) }) : null,
      about.orientation.length === 2 ? t("image.orientation", { right: about.orientation[0], down: about.orientation[1] }) : t("image.unoriented"),
      about.laterality ? t("image.laterality", { side: about.laterality }) : null,
    ];
    this.facts.textContent = words.filter(Boolean).join(" · ");
    this.earlier.hidden = !this.prior;
    this.earlier.textContent = this.prior ? t("image.earlier.shown", { study: priorName(this.prior) }) : "";
    const [right, down] = about.orientation.length === 2 ? about.orientation : ["", ""];
    this.marks.replaceChildren(
      ...[["left", opposite(right)], ["right", right], ["top", opposite(down)], ["bottom", down]].map(([side, text]) => h("span", { class: side }, text)),
    );
  }

  /** A line of a round length, where the file says how large a pixel is. */
  #measure() {
    const item = this.osd.world.getItemAt(0);
    const spacing = this.about.spacing_mm?.[1];
    this.scale.hidden = !item || !spacing;
    if (this.scale.hidden) return;
    // Our picture may be smaller than the stored one; its width is what both share.
    const pixels = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(1, 0)).x - item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0)).x;
    const perMillimetre = (pixels * item.getContentSize().x) / (this.about.columns * spacing);
    const length = [500, 200, 100, 50, 20, 10, 5, 2, 1].find((one) => one * perMillimetre < 160) ?? 1;
    this.scale.firstChild.style.width = `${length * perMillimetre}px`;
    this.scale.firstChild.textContent = length >= 10 ? `${length / 10} cm` : `${length} mm`;
  }

  #current() {
    return this.window ?? this.about.window ?? { center: 128, width: 256 };
  }

  #nudge([shift, factor]) {
    const { center, width } = this.#current();
    this.window = { center: center + shift * width, width: Math.max(1, width * factor) };
    this.#load();
  }

  #toggleInvert() {
    this.invert = !this.invert;
    this.invertButton.setAttribute("aria-pressed", String(this.invert));
    this.#load();
  }

  #reset() {
    this.window = null;
    this.invert = false;
    this.invertButton.setAttribute("aria-pressed", "false");
    this.#load();
  }

  /** The right button, or Shift, drags the window: across is width, up and down is centre. */
  #windowDrag() {
    let from = null;
    const begins = (event) => event.button === 2 || (event.button === 0 && event.shiftKey);
    this.stage.addEventListener("contextmenu", (event) => event.preventDefault());
    this.stage.addEventListener(
      "pointerdown",
      (event) => {
        if (!begins(event)) return;
        event.stopPropagation();
        event.preventDefault();
        from = { x: event.clientX, y: event.clientY, ...this.#current() };
        this.stage.setPointerCapture(event.pointerId);
      },
      true,
    );
    this.stage.addEventListener(
      "pointermove",
      (event) => {
        if (!from) return;
        event.stopPropagation();
        const width = Math.max(1, from.width * (1 + (event.clientX - from.x) / DRAG_PIXELS));
        const center = from.center + (from.width * (event.clientY - from.y)) / DRAG_PIXELS;
        this.window = { center, width };
        // The browser shows roughly what is coming; the picture itself follows when the button is let go.
        const brightness = Math.max(0.1, 1 - (center - from.center) / from.width);
        this.stage.style.filter = `contrast(${from.width / width}) brightness(${brightness})`;
        this.#describe();
      },
      true,
    );
    this.stage.addEventListener(
      "pointerup",
      (event) => {
        if (!from) return;
        event.stopPropagation();
        from = null;
        this.#load();
      },
      true,
    );
  }
}

const OPPOSITES = { L: "R", R: "L", A: "P", P: "A", H: "F", F: "H" };

/** The other end of a direction such as `LF`: each letter turned round (PS3.3 C.7.6.1.1.1). */
function opposite(direction) {
  return [...direction].map((letter) => OPPOSITES[letter] ?? letter).join("");
}

function priorName(prior) {
  const at = (prior.performed_at ?? prior.reported_at)?.slice(0, 10);
  return [at, prior.procedure ?? t("priors.study")].filter(Boolean).join(" · ");
}

function viewName(about, number) {
  const words = [about.modality, about.view_position].filter(Boolean).join(" ");
  return words || t("image.number", { number: number + 1 });
}

export async function startViewer(place, id) {
  const answer = await api.images(id).catch(() => null);
  const images = answer?.body.images ?? [];
  if (!images.length) {
    place.querySelector(".waiting")?.removeAttribute("hidden");
    place.querySelector("img")?.setAttribute("hidden", "");
    return;
  }
  await new Viewer(place, id, images).show(0);
}
