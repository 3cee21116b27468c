# wxlogind. `make` builds build/wxlogind and build/wxfake; `make help` lists the rest.
VERSION := 0.2.0
B       ?= build
CC      ?= cc
CSTD    := -std=gnu11
WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith
CFLAGS  ?= -O2 -g
HARDEN  := -fno-omit-frame-pointer -fstack-protector-strong -D_FORTIFY_SOURCE=2
ALL_CFLAGS = $(CSTD) $(WARN) $(HARDEN) $(CFLAGS) $(SAN) -D_GNU_SOURCE -DVERSION='"$(VERSION)"' -I. -Iserver -I$(B) -MMD -MP
LIBS    := -levhtp -levent -levent_openssl -lcurl -lhiredis -lcjson -lsqlite3 -lmariadb -lexpat -lssl -lcrypto -lm
PREFIX  ?= /usr/local

COMMON := $(wildcard common/*.c)
ROOMS  := $(wildcard server/http/*.c server/io/*.c server/wechat/*.c server/store/*.c server/api/*.c server/config/*.c) server/app.c server/connect.c server/options.c
FAKE   := $(wildcard test/wxfake/*.c)
UNIT   := $(patsubst test/unit/%.c,$(B)/unit/%,$(wildcard test/unit/test_*.c))
FUZZ   := $(patsubst test/fuzz/%.c,$(B)/fuzz/%,$(wildcard test/fuzz/fuzz_*.c))
obj     = $(patsubst %.c,$(B)/%.o,$(1))
LIBRARY := $(B)/libwxlogind.a

.PHONY: all unit it test asan tsan fuzz docs lint clean install uninstall help
all: $(B)/wxlogind $(B)/wxfake $(B)/confdoc

$(LIBRARY): $(call obj,$(COMMON) $(ROOMS))
	rm -f $@ && ar rcs $@ $^
$(B)/wxlogind: $(call obj,server/main.c server/crew.c server/handover.c server/published.c server/sockets.c) $(LIBRARY)
	$(CC) $(SAN) $(LDFLAGS) -o $@ $^ $(LIBS)
$(B)/wxfake: $(call obj,$(FAKE)) $(LIBRARY)
	$(CC) $(SAN) $(LDFLAGS) -o $@ $^ $(LIBS)
$(B)/confdoc: $(call obj,scripts/confdoc.c) $(LIBRARY)
	$(CC) $(SAN) $(LDFLAGS) -o $@ $^ $(LIBS)
$(B)/bench/%: $(B)/test/bench/%.o
	@mkdir -p $(@D)
	$(CC) $(SAN) $(LDFLAGS) -o $@ $^ -levhtp -levent
$(B)/unit/%: $(B)/test/unit/%.o $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) $(SAN) $(LDFLAGS) -o $@ $^ -lcmocka $(LIBS)
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -c -o $@ $<

# The scripts that Redis runs: each with the helpers that it uses, then as a C string, which its .c file includes.
LUA := $(patsubst server/store/%.lua,$(B)/lua/%.lua,$(filter-out %/prelude.lua,$(wildcard server/store/*.lua)))
$(B)/lua/%.lua: server/store/%.lua server/store/prelude.lua scripts/lua-compose
	@mkdir -p $(@D)
	scripts/lua-compose server/store/prelude.lua $< > $@
$(B)/lua/%.h: $(B)/lua/%.lua
	sed 's/["\\]/\\&/g; s/.*/"&\\n"/' $< > $@
$(patsubst %.c,$(B)/%.o,$(wildcard server/store/*.c)): | $(LUA:.lua=.h)

# They say the version.
$(B)/server/app.o $(B)/server/main.o $(B)/test/wxfake/main.o: Makefile

$(B)/test/wxfake/page.o: $(shell find test/wxfake/page miniprogram -type f) # page.c has them within
$(B)/server/api/console.o: $(wildcard server/api/console/*) # and console.c these

unit: $(UNIT) ## build and run the unit tests
	@scripts/unit $(UNIT)
it: all ## run the integration tests
	scripts/it
test: ## everything
	scripts/test
asan: ## both programs and the unit tests under ASan and UBSan, into build-asan/
	$(MAKE) B=build-asan SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined" CFLAGS="-O1 -g" HARDEN=-fno-omit-frame-pointer all units
TSAN := test_resolve test_jobs test_log test_user test_redis test_conn test_cluster test_cluster_map test_sentinel
tsan: ## the unit tests of what has threads, under ThreadSanitizer, in build-tsan/
	$(MAKE) B=build-tsan SAN=-fsanitize=thread CFLAGS="-O1 -g" HARDEN=-fno-omit-frame-pointer $(TSAN:%=build-tsan/unit/%)
	scripts/unit $(TSAN:%=build-tsan/unit/%)
units: $(UNIT)
fuzz: ## build the fuzzers (clang) into build-fuzz/
	$(MAKE) B=build-fuzz CC=clang SAN="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" CFLAGS="-O1 -g" HARDEN= fuzzers
fuzzers: $(FUZZ)
$(B)/fuzz/%: $(B)/test/fuzz/%.o $(LIBRARY)
	@mkdir -p $(@D)
	$(CC) -fsanitize=fuzzer,address,undefined -o $@ $^ $(LIBS)
docs: $(B)/confdoc ## write what the documents say of configuration keys and metrics, from their tables
	$(B)/confdoc example >$(B)/new && mv $(B)/new server/wxlogind.ini.example
	$(B)/confdoc md docs/configuration.md >$(B)/new && mv $(B)/new docs/configuration.md
	$(B)/confdoc metrics docs/metrics.md >$(B)/new && mv $(B)/new docs/metrics.md
	$(B)/confdoc man docs/man/wxlogind.ini.5 >$(B)/new && mv $(B)/new docs/man/wxlogind.ini.5
# What is installed, below PREFIX: mode, from, to.
INSTALL := 755:$(B)/wxlogind:sbin/wxlogind 755:$(B)/wxfake:bin/wxfake \
	644:docs/man/wxlogind.8:share/man/man8/wxlogind.8 644:docs/man/wxlogind.ini.5:share/man/man5/wxlogind.ini.5 \
	644:docs/man/wxfake.1:share/man/man1/wxfake.1 644:server/wxlogind.ini.example:share/doc/wxlogind/wxlogind.ini.example \
	$(foreach u,wxlogind.service wxlogind.socket wxlogind-internal.socket,644:server/systemd/$(u):lib/systemd/system/$(u))
part = $(word $(2),$(subst :, ,$(1)))
install: $(B)/wxlogind $(B)/wxfake ## into PREFIX (default /usr/local), below DESTDIR
	$(foreach i,$(INSTALL),install -D -m $(call part,$(i),1) $(call part,$(i),2) "$(DESTDIR)$(PREFIX)/$(call part,$(i),3)" &&) true
	sed -i 's|=/usr/sbin/|=$(PREFIX)/sbin/|' "$(DESTDIR)$(PREFIX)/lib/systemd/system/wxlogind.service"
uninstall: ## removes what install has put there
	rm -f $(foreach i,$(INSTALL),"$(DESTDIR)$(PREFIX)/$(call part,$(i),3)")
	[ ! -d "$(DESTDIR)$(PREFIX)/share/doc/wxlogind" ] || rmdir "$(DESTDIR)$(PREFIX)/share/doc/wxlogind"
lint: ## clang-tidy, cppcheck, who includes whom
	scripts/lint
clean:
	rm -rf build build-asan build-tsan build-fuzz build-clang
help:
	@grep -hE '^[a-z]+:.*## ' Makefile | sed 's/:.*## /\t/'
.SECONDARY:
.DELETE_ON_ERROR:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
