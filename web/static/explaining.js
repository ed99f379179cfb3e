// "Explain this image": the explain page's own view as a part of the lab. Its script and its style are those of `radiograd explain`, and are
// fetched when they are first needed. They stand in a shadow tree, where the lab's style does not reach them.

const host = document.getElementById("explain");
const said = document.getElementById("explained");

/** What is shown: { key, name, step, image }. */
let shown = null;
let root = null;

const loaded = (element, parent) =>
  new Promise((resolve, reject) => {
    element.onload = resolve;
    element.onerror = () => {
      element.remove();
      reject(new Error("The view did not load; try again."));
    };
    parent.append(element);
  });

/** The place where the view goes. */
async function place() {
  if (root) return root;
  const shadow = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("./explain.css", import.meta.url).href });
  const script = Object.assign(document.createElement("script"), { src: new URL("./explain.js", import.meta.url).href });
  await Promise.all([loaded(style, shadow), loaded(script, document.head)]);
  root = document.createElement("div");
  root.dataset.level = "3";
  shadow.append(root);
  return root;
}

/** Shows an Explanation, given as JSON; `what` says of which network, step and image. */
export async function showExplanation(json, what) {
  const into = await place();
  const data = JSON.parse(json);
  // Reading it and drawing it are turns of their own: the page stays free between them.
  await new Promise((resolve) => setTimeout(resolve));
  host.hidden = false;
  globalThis.radiogradExplain(into, data);
  shown = what;
  compareExplanation(what);
  host.focus({ preventScroll: true });
  host.scrollIntoView({ block: "start" });
}

/** Takes the view away: it is of networks or images that are gone. */
export function closeExplanation() {
  shown = null;
  host.hidden = true;
  root?.replaceChildren();
  said.textContent = "";
}

/** Says of what the explanation is, where the lab now shows `now`. */
export function compareExplanation(now) {
  if (!shown) return;
  const { name, step, image } = shown;
  const other = now.key !== shown.key || now.image !== shown.image;
  const text = `Explained below: ${name} at step ${step}, ${image}.`;
  const all = other ? `${text} Above is another choice.` : now.step > step ? `${text} It has learned since.` : text;
  // Every new text is read out.
  if (said.textContent !== all) said.textContent = all;
}
