// Leads from an address that names no place to the pages, in a browser that was let in before.
// What is remembered belongs to this host name and port: no program on another port reads it, as it would a cookie.
(() => {
  const { root, place } = document.currentScript.dataset;
  const key = `research-kit place ${root}`;
  try {
    if (place) {
      localStorage.setItem(key, place);
      return;
    }
    const known = localStorage.getItem(key) ?? "";
    if (!/^at-[0-9a-f]{32}$/.test(known)) return;
    const asked = new URL(location.href);
    asked.searchParams.delete("token");
    location.replace(`${root}/${known}${asked.pathname.slice(root.length)}${asked.search}`);
  } catch {
    // A browser that remembers nothing needs a link each time.
  }
})();
