// Airflow's own choice of light or dark, which it keeps in this origin's storage; else the system's.
(function () {
  "use strict";
  function follow() {
    var theme = null;
    try { theme = window.localStorage.getItem("theme"); } catch (e) { /* storage may be off */ }
    document.documentElement.dataset.theme = theme === "dark" || theme === "light" ? theme : "";
  }
  follow();
  window.addEventListener("storage", follow);
})();
