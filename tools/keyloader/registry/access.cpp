// The comparison behind Access.
#include "registry/access.hpp"

#include <fmt/format.h>

#include <array>
#include <functional>

#include "apikey/scope_set.hpp"

namespace keyloader {
namespace {

// Lists that allow: an empty one allows everything.
struct Condition {
  std::string_view field;
  std::string_view what;
  std::string_view option;
};
constexpr std::array<Condition, 4> kConditions{{{"allow_ip", "address", "--allow-ip"},
                                                {"allow_origin", "origin", "--allow-origin"},
                                                {"allow_method", "method", "--allow-method"},
                                                {"allow_host", "host", "--allow-host"}}};

// 0 is "for ever" for the end of a validity or of a suspension.
bool is_later(Seconds a, Seconds b) { return b != 0 && (a == 0 || a > b); }

}  // namespace

Access::Access(const Fields& now, const Fields& then) : now_(now), then_(then) {
  add_lists();
  add_times();
  if (flag_of(now, "require_tls") && !flag_of(then, "require_tls")) {
    regained_.push_back({"without TLS", "--no-require-tls"});
  }
}

bool Access::ends_revocation() const { return time_of(now_, "revoked") != 0 && time_of(then_, "revoked") == 0; }

bool Access::ends_suspension() const {
  return flag_of(now_, "suspended") && (!flag_of(then_, "suspended") ||
                                        is_later(time_of(now_, "suspended_until"), time_of(then_, "suspended_until")));
}

// `all`: what the list held; `set` takes a list as a whole.
void Access::add(std::string_view what, std::string_view option, const Texts& again, const Texts& all) {
  std::string words;
  for (const std::string& value : all) {
    words += fmt::format("{}{} {}", words.empty() ? "" : " ", option, value);
  }
  for (const std::string& value : again) {
    regained_.push_back({fmt::format("{} {}", what, value), words});
    words.clear();
  }
}

void Access::add_lists() {
  const Texts scopes = texts_of(then_, "scopes");
  add("scope", "--scope",
      gained(scopes, texts_of(now_, "scopes"),
             [](const std::string& held, const std::string& one) { return apikey::scope_grants(held, one); }),
      scopes);
  const Texts roles = texts_of(then_, "roles");
  add("role", "--role", gained(roles, texts_of(now_, "roles"), std::equal_to<>{}), roles);
  for (const auto& [field, what, option] : kConditions) {
    const Texts now = texts_of(now_, std::string{field});
    const Texts then = texts_of(then_, std::string{field});
    if (!now.empty() && then.empty()) {
      regained_.push_back({fmt::format("every {}", what), fmt::format("{} none", option)});
    } else if (!now.empty()) {
      add(what, option, gained(then, now, std::equal_to<>{}), then);
    }
  }
}

void Access::add_times() {
  const Seconds expires = time_of(then_, "expires");
  if (is_later(expires, time_of(now_, "expires"))) {
    const std::string end = expires == 0 ? "none" : time_text(expires);
    regained_.push_back({expires == 0 ? "no end" : "the end " + end, "--expires " + end});
  }
  const Seconds begin = time_of(then_, "not_before");
  if (begin < time_of(now_, "not_before")) {
    const std::string text = begin == 0 ? "none" : time_text(begin);
    regained_.push_back({begin == 0 ? "no begin" : "the begin " + text, "--not-before " + text});
  }
}

}  // namespace keyloader
