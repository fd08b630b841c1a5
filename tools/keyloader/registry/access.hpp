// What one state of an object allows and another does not. Called by `audit revert`, which never gives access back, and
// by the policy, which asks for a second person where access grows.
#pragma once

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "registry/fields.hpp"

namespace keyloader {

// What is in `more` and not held already. A wider scope holds a narrower one.
template <typename Holds>
[[nodiscard]] Texts gained(const Texts& more, const Texts& held, const Holds& holds) {
  Texts all;
  std::copy_if(more.begin(), more.end(), std::back_inserter(all), [&](const std::string& one) {
    return std::none_of(held.begin(), held.end(), [&](const std::string& each) { return holds(each, one); });
  });
  return all;
}

struct Regained {
  std::string what;                // "scope orders:write"
  std::string option;              // "--scope orders:write"; empty: that of the one before gives it back, too
  bool is_administrators = false;  // `admin set` has that option
};

// Each role of an administrator may do what those before it may; apikey:* is above all. The table is in
// docs/keyloader.md.
[[nodiscard]] bool holds_role(const Texts& admin_scopes, std::string_view role);
// `admin` may give every scope unless it is said which.
[[nodiscard]] bool grants_all(const Key& key);

// What `then` allows and `now` does not. A field that is absent on both sides is the same on both. LIFETIME: that of
// the fields.
class Access {
 public:
  Access(const Fields& now, const Fields& then);

  [[nodiscard]] const std::vector<Regained>& regained() const { return regained_; }
  [[nodiscard]] bool ends_revocation() const;
  [[nodiscard]] bool ends_suspension() const;

 private:
  void add(std::string_view what, std::string_view option, const Texts& again, const Texts& all,
           bool is_administrators = false);
  void add_lists();
  void add_times();
  void add_administrator();

  const Fields& now_;
  const Fields& then_;
  std::vector<Regained> regained_;
};

}  // namespace keyloader
