(function () {
  "use strict";
  var root = document.documentElement;

  // The theme that was chosen in Airflow, which it keeps in this origin's storage; else the system's.
  function follow() {
    var theme = null;
    try { theme = window.localStorage.getItem("theme"); } catch (e) { /* storage may be off */ }
    root.dataset.theme = theme === "dark" || theme === "light" ? theme : "";
  }
  follow();
  window.addEventListener("storage", follow);

  // Reload an incomplete page, but not while somebody is typing or following a link.
  var leaving = false;
  function again() {
    if (leaving) { return; }
    if (document.activeElement && document.activeElement.form) { window.setTimeout(again, 1000); return; }
    window.location.replace(root.dataset.again);
  }
  window.addEventListener("beforeunload", function () { leaving = true; });
  if (root.dataset.again) { window.setTimeout(again, 1000); }
})();
