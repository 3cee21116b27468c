/**
 * Scripts of the mini program arrive as define("app.js", function ...): kept here, run when the
 * mini program starts.
 */
"use strict";

const modules = new Map();

function define(name, factory) {
  modules.set(name, factory);
}

window.miniprogramModules = modules;
