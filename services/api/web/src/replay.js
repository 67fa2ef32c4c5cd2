// A run once more: the canvases that were shown while it was written, step by step or played.
import { api } from "./api.js";
import { settledOf } from "./canvas.js";
import { button, h } from "./dom.js";
import { drawCanvas } from "./fill.js";
import { t } from "./texts.js";

// Slow enough to see what changes from one canvas to the next.
const CANVAS_MS = 350;

/** The run of a job as an element. Its canvases are asked for when somebody wants to see them. */
export function replayOf(jobId) {
  const place = h("div", { class: "replay" });
  place.append(button(t("replay.open"), null, () => show(place, jobId)));
  return place;
}

async function show(place, jobId) {
  const answer = await api.canvases(jobId).catch(() => null);
  const canvases = answer?.body.canvases ?? [];
  if (canvases.length) new Replay(place, canvases);
  else place.replaceChildren(h("p", {}, t(answer ? "replay.none" : "side.failed")));
}

class Replay {
  constructor(place, canvases) {
    this.canvases = canvases;
    this.canvas = h("div", { class: "text", dir: "auto" });
    this.told = h("output", {});
    this.slider = h("input", { type: "range", min: 1, max: canvases.length, value: 1, "aria-label": t("replay.step"), oninput: () => this.#go(Number(this.slider.value)) });
    this.toggle = button(t("replay.play"), null, () => (this.timer ? this.#pause() : this.#play()));
    place.replaceChildren(h("p", { class: "controls" }, this.toggle, this.slider, this.told), this.canvas);
    this.toggle.focus();
    this.#play();
  }

  #play() {
    if (this.at >= this.canvases.length || !this.at) this.#draw(1);
    this.toggle.textContent = t("replay.pause");
    this.timer = setInterval(() => {
      // Somebody may have gone elsewhere meanwhile.
      if (this.at >= this.canvases.length || !this.canvas.isConnected) this.#pause();
      else this.#draw(this.at + 1);
    }, CANVAS_MS);
  }

  #pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.toggle.textContent = t("replay.play");
  }

  #go(at) {
    this.#pause();
    this.#draw(at);
  }

  #draw(at) {
    this.at = at;
    const canvas = this.canvases[at - 1];
    drawCanvas(this.canvas, settledOf(canvas));
    this.slider.value = at;
    this.told.textContent = t("fill.step", { step: canvas.step, steps: canvas.steps });
  }
}
