// What a key may be allowed to do with keys. Each is a scope that begins with `apikey:` and is reserved.
// Called by admin.cpp, which alone gives them to keys, and wherever somebody may take one for a role of the registry.
#pragma once

#include <string>
#include <string_view>

#include "registry/model.hpp"

namespace keyloader {

inline constexpr std::string_view kReservedStem = "apikey:";
inline constexpr std::string_view kAllReserved = "apikey:*";

[[nodiscard]] const Texts& admin_roles();
[[nodiscard]] bool is_admin_role(std::string_view name);

// `view` of `apikey:view`; any other scope as it is.
[[nodiscard]] std::string admin_word(const std::string& scope);

// For people, of an administrator's key: the scopes that it may give, and the teams that it is for; "all"; "-" where it
// gives none.
[[nodiscard]] std::string may_grant_text(const Key& key);
[[nodiscard]] std::string teams_text(const Key& key);

// Why `scope` is refused everywhere but in `keyloader admin`, and what to do instead.
[[nodiscard]] std::string reserved_sentence(const std::string& scope);

}  // namespace keyloader
