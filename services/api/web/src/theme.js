// Theme and size of the window: choices of the person at this screen. Nothing of a patient is ever kept in a browser.

const THEMES = ["dark", "light"];
const SIZES = [87.5, 100, 112.5, 125, 150, 175, 200];

function kept(name, known, otherwise) {
  try {
    const value = JSON.parse(localStorage.getItem(name));
    return known.includes(value) ? value : otherwise;
  } catch {
    return otherwise;
  }
}

function apply() {
  const root = document.documentElement;
  root.dataset.theme = kept("inlay-theme", THEMES, "dark");
  root.style.fontSize = `${kept("inlay-size", SIZES, 100)}%`;
}

function start() {
  apply();
  document.querySelector("#theme")?.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme === "light" ? "dark" : "light";
    localStorage.setItem("inlay-theme", JSON.stringify(now));
    apply();
  });
  for (const [id, step] of [["#smaller", -1], ["#larger", 1]]) {
    document.querySelector(id)?.addEventListener("click", () => {
      const at = SIZES.indexOf(kept("inlay-size", SIZES, 100)) + step;
      localStorage.setItem("inlay-size", JSON.stringify(SIZES[Math.min(Math.max(at, 0), SIZES.length - 1)]));
      apply();
    });
  }
  for (const hidden of document.querySelectorAll(".scripted[hidden]")) hidden.hidden = false;
}

start();
