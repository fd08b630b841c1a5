// Two descriptors that a worker keeps for nothing but switching to a new snapshot: one for the copy, one for liblmdb
// while it opens it. A worker that has used up its descriptors for connections can then still learn that a key was
// revoked. Thread-safe: the verifying thread needs as many.
#pragma once

namespace apikey::nginx {

void fill_reserve() noexcept;   // takes what is missing; descriptors that cannot be had now are asked for next time
void spend_reserve() noexcept;  // closes them: whoever opens next gets their place

}  // namespace apikey::nginx
