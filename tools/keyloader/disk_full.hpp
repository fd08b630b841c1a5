// A write that failed because the disk is full. Thrown by the registry and by check(); delivery.cpp needs to know it,
// because a change that is stored must not be tried again.
#pragma once

#include "registry/registry.hpp"

namespace keyloader {

class DiskFull : public Failure {
 public:
  using Failure::Failure;
};

}  // namespace keyloader
