package main

import "github.com/IBM/sarama"

func (s *shopify) registerTransactions(all *suite) {
	for _, name := range []string{"default", "newest"} {
		all.add("transactions commit and abort, "+name, func() { s.transactionsEnd(name) })
		all.add("offsets go with the transaction, "+name, func() { s.relay(name) })
		all.add("a second producer fences the first, "+name, func() { s.fencedProducer(name) })
	}
}

func committedOnly(config *sarama.Config) { config.Consumer.IsolationLevel = sarama.ReadCommitted }

func (s *shopify) transactional(name, id string) sarama.SyncProducer {
	return s.producer(version(name), idempotent, manual, func(config *sarama.Config) {
		config.Producer.Transaction.ID = id
	})
}

// writes sends values to partition 0 within the transaction that is open.
func writes(producer sarama.SyncProducer, topic string, values ...string) error {
	var messages []*sarama.ProducerMessage
	for _, value := range values {
		messages = append(messages, &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(value)})
	}
	return producer.SendMessages(messages)
}

func (s *shopify) transactionsEnd(name string) {
	topic := s.topic(1, nil)
	producer := s.transactional(name, fresh("txn"))
	defer producer.Close()
	for turn, value := range []string{"0", "1", "2", "3", "4"} {
		must(producer.BeginTxn())
		must(writes(producer, topic, value+"a", value+"b"))
		if turn%2 == 0 {
			must(producer.CommitTxn())
		} else {
			must(producer.AbortTxn())
		}
	}
	committed := s.read(topic, 0, 0, 6, version(name), committedOnly)
	same("committed", []string{"0a", "0b", "2a", "2b", "4a", "4b"}, contents(committed))
	everything := s.read(topic, 0, 0, 10, version(name))
	same("everything", []string{"0a", "0b", "1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b"}, contents(everything))
}

func (s *shopify) relay(name string) {
	source, target, group := s.topic(1, nil), s.topic(1, nil), fresh("group")
	s.produce(source, 0, "1", "2", "3")
	taken := s.read(source, 0, 0, 3, version(name), committedOnly)
	producer := s.transactional(name, fresh("txn"))
	defer producer.Close()
	admin := s.admin()
	defer admin.Close()
	committed := func() int64 {
		answer, err := admin.ListConsumerGroupOffsets(group, map[string][]int32{source: {0}})
		must(err)
		return answer.GetBlock(source, 0).Offset
	}
	for _, commit := range []bool{false, true} {
		must(producer.BeginTxn())
		for _, message := range taken {
			must(writes(producer, target, string(message.Value)+"!"))
		}
		must(producer.AddMessageToTxn(taken[2], group, nil))
		if commit {
			must(producer.CommitTxn())
		} else {
			must(producer.AbortTxn())
			same("offset after the abort", int64(-1), committed())
		}
	}
	same("offset", int64(3), committed())
	relayed := s.read(target, 0, 0, 3, version(name), committedOnly)
	same("relayed", []string{"1!", "2!", "3!"}, contents(relayed))
}

func (s *shopify) fencedProducer(name string) {
	topic, id := s.topic(1, nil), fresh("txn")
	first := s.transactional(name, id)
	defer first.Close()
	must(first.BeginTxn())
	must(writes(first, topic, "lost"))
	second := s.transactional(name, id)
	defer second.Close()
	must(second.BeginTxn())
	must(writes(second, topic, "kept"))
	must(second.CommitTxn())
	late := writes(first, topic, "late")
	if late == nil {
		late = first.CommitTxn()
	}
	holds(late != nil, "a fenced producer went on")
	committed := s.read(topic, 0, 0, 1, version(name), committedOnly)
	same("committed", []string{"kept"}, contents(committed))
}
