// Which limits apply together, where each comes from, and whether they make sense together.
// Called by every command that changes a plan, an owner, or the plan or limits of a key, and by those that show them.
#pragma once

#include <string>
#include <vector>

#include "registry/registry.hpp"

namespace keyloader {

// A limit as it applies to a key. `from`: `plan:<name>`, `key` or `owner:<name>`.
struct EffectiveLimit {
  Limit limit;
  std::string from;
};

// The plan's, replaced by the key's own of the same name and kind; then the owner's.
[[nodiscard]] std::vector<EffectiveLimit> effective_limits(const Key& key, const Plan& plan, const Owner& owner);
[[nodiscard]] std::vector<EffectiveLimit> effective_limits(Registry& registry, const Key& key);
[[nodiscard]] Json to_json(const EffectiveLimit& effective);
// "the plan gold", "the key", "the owner acme".
[[nodiscard]] std::string source_text(const EffectiveLimit& effective);

// Each throws a Failure when more limits come together than nginx takes at once. RETURNS: sentences that name both
// limits where a longer period allows less than a shorter one.
[[nodiscard]] Texts check_limits(const Owner& owner);
// With every key that has this plan and limits of its own.
[[nodiscard]] Texts check_limits(Registry& registry, const Plan& plan);
// `whose`: how the sentence calls the key.
[[nodiscard]] Texts check_limits(Registry& registry, const Key& key, const std::string& whose);

}  // namespace keyloader
