(function () {
  "use strict";
  var root = document.documentElement;

  // Airflow's own choice of light or dark, which it keeps in this origin's storage; else the system's.
  function follow() {
    var theme = null;
    try { theme = window.localStorage.getItem("theme"); } catch (e) { /* storage may be off */ }
    root.dataset.theme = theme === "dark" || theme === "light" ? theme : "";
  }
  follow();
  window.addEventListener("storage", follow);

  // What is not done yet is loaded again, but neither under the hands of somebody who types nor in the way of a link.
  var leaving = false;
  function again() {
    if (leaving) { return; }
    if (document.activeElement && document.activeElement.form) { window.setTimeout(again, 1000); return; }
    window.location.replace(root.dataset.again);
  }
  window.addEventListener("beforeunload", function () { leaving = true; });
  if (root.dataset.again) { window.setTimeout(again, 1000); }
})();
