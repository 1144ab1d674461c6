(() => {
  const { src, dataset } = document.currentScript;
  const { key, instance, label = "Chat", offline = "Offline", teaser, theme } = dataset;
  const all = window.Tenantune?.all ?? {};
  if (all[instance]) return;
  const { origin } = new URL(src);
  const { style, lang } = document.documentElement;
  const heard = {};
  let frame, ready, identity, overflow;

  const store = (act, value, name = key) => {
    try {
      return localStorage[act + "Item"]("tenantune:" + name, value);
    } catch {}
  };
  let visitor = store("get");
  const add = (to, tag, props) => Object.assign(to.appendChild(document.createElement(tag)), props);
  const emit = ({ name, detail }) => heard[name]?.map((then) => then(detail));
  const tell = (type, detail) => ready && frame.contentWindow.postMessage({ t: "tt", v: 1, type, ...detail }, origin);
  const toggle = (show) => {
    if (show === box.open) return;
    if (show && !ready && !navigator.onLine) return (button.firstChild.data = offline);
    button.firstChild.data = label;
    if (show) {
      overflow = style.overflow;
      if (innerWidth < 481) {
        box.showModal();
        style.overflow = "hidden";
      } else box.show();
      frame ??= add(box, "iframe", {
        title: label, referrerPolicy: "origin",
        src: `${origin}/widget/${key}/panel?v=1&lang=${dataset.lang || lang}`,
      });
      fit();
    } else {
      if (root.activeElement) button.focus();
      box.close();
      style.overflow = overflow;
    }
    button.ariaExpanded = show;
    tease.remove();
    const name = show ? "open" : "close";
    emit({ name });
    tell(name);
  };
  const open = () => toggle(true);
  const close = () => toggle(false);
  const fit = () => (box.style = `--top:${visualViewport.offsetTop}px;max-height:${visualViewport.height}px`);

  const root = add(document.documentElement, "tenantune-chat", { style: theme, ariaLabel: label, role: "region" }).attachShadow({ mode: "open" });
  const box = add(root, "dialog", { ariaLabel: label, oncancel: close });
  const tease = add(root, "section", { textContent: teaser });
  if (!teaser || store("get", 0, "teaser") > Date.now()) tease.remove();
  add(tease, "button", {
    textContent: "×", ariaLabel: "OK",
    onclick: () => {
      tease.remove();
      store("set", Date.now() + 6048e5, "teaser");
    },
  });
  const button = add(root, "button", { ariaExpanded: false, textContent: label, onclick: () => toggle(!box.open) });
  const badge = add(button, "b");
  const sheet = new CSSStyleSheet();
  root.adoptedStyleSheets = [sheet];
  sheet.replaceSync(`
:host{all:initial;position:fixed;bottom:20px;inset-inline-end:20px;z-index:9999999;color-scheme:light dark;font:16px/1.4 var(--tt-font,system-ui)}
button{padding:14px 20px;border:1px solid #0000;background:none;color:inherit;font:inherit;cursor:pointer}
dialog~button{border-radius:99px;background:var(--tt-accent,#0a665a);color:var(--tt-on-accent,#fff);font-weight:600;box-shadow:0 4px 16px #0004}
b{position:absolute;bottom:38px;inset-inline-end:0;padding:2px 7px;border-radius:99px;background:Canvas;color:CanvasText;font-size:12px;border:1px solid}
dialog,section{position:absolute;inset-inline:auto 0;bottom:66px;margin:0;padding:0;border:1px solid #8888;border-radius:var(--tt-radius,14px);background:var(--tt-surface,Canvas);color:var(--tt-ink,CanvasText);overflow:hidden;box-shadow:0 4px 16px #0004}
dialog{width:392px;height:min(656px,100dvh - 112px)}
section{display:flex;place-items:center;padding-inline-start:14px;width:272px}
b:empty{display:none}
iframe{border:0;width:100%;height:100%}
:modal{position:fixed;top:var(--top);width:100%;height:100dvh;max-width:none;border-radius:0;border:0}
@media print{:host{display:none}}`);

  const destroy = () => {
    close();
    root.host.remove();
    delete all[instance];
    [window.Tenantune] = Object.values(all);
  };
  const hears = {
    ready: () => {
      ready = true;
      frame.focus();
      tell("hello", { visitor, identity, theme, open: box.open });
    },
    close,
    visitor: ({ token }) => store(token ? "set" : "remove", (visitor = token)),
    event: emit,
    unread: ({ count, text }) => {
      badge.textContent = count;
      button.ariaLabel = label + text;
    },
    refused: destroy,
  };
  window.Tenantune = all[instance] = {
    all, open, close, destroy,
    identify: (to) => tell("identify", (identity = to)),
    signOut: () => {
      hears.visitor({});
      tell("signOut", (identity = null));
    },
    setLanguage: (to) => tell("language", { lang: (dataset.lang = to) }),
    on: (name, then) => (heard[name] ??= []).push(then),
  };
  addEventListener("message", ({ source, origin: from, data }) => {
    if (source === frame?.contentWindow && from === origin && data.v === 1) hears[data.type]?.(data);
  });
  visualViewport.addEventListener("scroll", fit);
  visualViewport.addEventListener("resize", fit);
})();
