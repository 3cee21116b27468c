/** The client's tests with another platform: uni-app: `uni` is a global. */
"use strict";
process.env.MP_PLATFORM = "uni";
require("./login.test.js");
require("./request.test.js");
require("./repeat.test.js");
require("./origins.test.js");
require("./limits.test.js");
require("./files.test.js");
